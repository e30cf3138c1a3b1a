# Helm is the only provider: Applications go in as Helm releases, so that planning needs no CRD and one apply does it
# all.
provider "helm" {
  kubernetes = {
    config_paths   = [for path in split(":", var.kube_config_path) : pathexpand(path)]
    config_context = var.kube_context
  }
}
