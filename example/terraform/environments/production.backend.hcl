# The state is a file on this machine: keep a copy, and move to a shared backend before a second person applies.
path = "environments/production.tfstate"
