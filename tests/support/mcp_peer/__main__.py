"""The command; see the text of the folder."""

import importlib
import sys

KINDS = ("good", "asking", "faults", "planned", "oversized", "hostile")


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else ""
    if kind not in KINDS:
        sys.exit(f"the kind of MCP peer must be one of {', '.join(KINDS)}, not {kind!r}")
    # Only this one is imported: most start at once, without the SDK.
    importlib.import_module(f"tests.support.mcp_peer.{kind}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
