locals {
  project = {
    namespace   = "argocd"
    description = "Team ${var.team}"
    sourceRepos = var.source_repos
    destinations = [
      for namespace in var.namespaces : { server = "https://kubernetes.default.svc", namespace = namespace }
    ]

    # The cluster-scoped kinds that the components' charts render. A component that needs another one adds it here.
    clusterResourceWhitelist = [
      { group = "apiextensions.k8s.io", kind = "CustomResourceDefinition" },
      { group = "rbac.authorization.k8s.io", kind = "ClusterRole" },
      { group = "rbac.authorization.k8s.io", kind = "ClusterRoleBinding" },
      { group = "admissionregistration.k8s.io", kind = "MutatingWebhookConfiguration" },
      { group = "admissionregistration.k8s.io", kind = "ValidatingWebhookConfiguration" },
      { group = "scheduling.k8s.io", kind = "PriorityClass" },
      { group = "cert-manager.io", kind = "ClusterIssuer" },
      { group = "external-secrets.io", kind = "ClusterSecretStore" },
    ]
    # Limits on a namespace are for whoever runs the cluster to set, not for what is limited by them.
    namespaceResourceBlacklist = [
      { group = "", kind = "ResourceQuota" },
      { group = "", kind = "LimitRange" },
    ]
  }
}
