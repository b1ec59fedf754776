"""The catalog: agent files and what they name, read and checked."""
