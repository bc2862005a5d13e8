"""Who judges what no rule can: a server, a language model on this machine, or people with a file."""
