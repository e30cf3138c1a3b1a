# The laptop's state is always a file here, whatever backend production uses (scripts/terraform.sh sees to it).
path = "environments/local.tfstate"
