"""Who may do what, and how much: API keys, limits, admission."""
