locals {
  project = {
    namespace   = "argocd"
    description = "Team ${var.team}"
    sourceRepos = var.source_repos
    destinations = [
      for namespace in var.namespaces : { server = "https://kubernetes.default.svc", namespace = namespace }
    ]

    # `clusterKinds` of the components' application.yaml.
    clusterResourceWhitelist = [
      for kind in var.cluster_kinds : { group = split("/", kind)[0], kind = split("/", kind)[1] }
    ]
    # Limits on a namespace are for whoever runs the cluster to set, not for what is limited by them.
    namespaceResourceBlacklist = [
      { group = "", kind = "ResourceQuota" },
      { group = "", kind = "LimitRange" },
    ]
  }
}
