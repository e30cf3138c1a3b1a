variable "environment" {
  description = "Adds values-<environment>.yaml of this module, where present."
  type        = string
}

variable "platform" {
  description = "Marks what this Argo CD tracks (annotation argocd.argoproj.io/installation-id)."
  type        = string
}

variable "team" {
  description = "Name of the project, of its role and of the group that has the role."
  type        = string
}

variable "namespaces" {
  description = "Namespaces into which the project may deploy."
  type        = list(string)

  validation {
    condition     = !contains(var.namespaces, "argocd")
    error_message = "No component may deploy into `argocd`: whoever writes there controls every project."
  }
}

variable "source_repos" {
  description = "Repositories and chart registries from which the project may deploy; OCI ones without a scheme."
  type        = list(string)

  validation {
    condition     = !contains(var.source_repos, "*")
    error_message = "source_repos must name repositories, not `*`."
  }
}

variable "cluster_kinds" {
  description = "Cluster-scoped kinds that the project may deploy, as `group/Kind`."
  type        = list(string)
  default     = []

  validation {
    condition     = !anytrue([for kind in var.cluster_kinds : strcontains(kind, "*") || endswith(kind, "/Namespace")])
    error_message = "Cluster-scoped kinds are named one by one, and namespaces are Terraform's."
  }
}

variable "working_copy" {
  description = "Path on the node of a Git working copy that the repo-server reads. Empty: none."
  type        = string
  default     = ""
}

variable "chart_registry" {
  description = "OCI registry that mirrors charts and images. Empty: upstream."
  type        = string
  default     = ""
}

variable "ingress_class" {
  description = "Class of that Ingress. Empty: the cluster's default."
  type        = string
  default     = ""
}

variable "domain" {
  description = "Argo CD gets an Ingress argocd.<domain>. Empty: none."
  type        = string
  default     = ""
}
