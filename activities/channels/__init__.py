"""One module a kind of channel; those that need an HTTP client are imported only when a configuration names them."""
