# What both environments share. Each environment adds environments/<environment>.tfvars.
platform       = "acme-platform"
team           = "checkout"
repo_url       = "https://github.com/acme/acme-platform.git"
repo_revision  = "main"
chart_registry = ""
