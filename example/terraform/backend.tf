# Where the state lives. Its settings are in environments/<environment>.backend.hcl: Terraform allows no variables here.
terraform {
  backend "local" {}
}
