"""Who we are to a service: credentials, the secrets behind them, keys that stay in a vault."""
