terraform {
  required_version = ">= 1.10" # locks of the S3 backend

  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = "3.1.2"
    }
  }
}
