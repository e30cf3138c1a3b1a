variable "environment" {
  description = "Name of the environment: picks the Helm value files `values-<environment>.yaml` of every component."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.environment))
    error_message = "environment must be a DNS label such as local or production. Each has its file: environments/<environment>.tfvars."
  }
}

variable "platform" {
  description = "Name of this platform (DNS label): labels its namespaces and marks what its Argo CD tracks."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$", var.platform))
    error_message = "platform must be a DNS label: lower-case letters, digits and dashes, at most 42 characters (Helm limits release names to 53)."
  }
}

variable "team" {
  description = "The team: namespace of its app, name of its Argo CD project, and the group that may work in that project."
  type        = string

  validation {
    condition     = can(regex("^[a-z]([-a-z0-9]{0,36}[a-z0-9])?$", var.team)) && !contains(["default", "argocd"], var.team)
    error_message = "team must be a DNS label of at most 38 characters (Helm limits release names to 53) that starts with a letter, and neither `default` nor `argocd`: those names are taken in Argo CD."
  }
}

variable "repo_url" {
  description = "Git repository that Argo CD reads."
  type        = string

  validation {
    condition     = can(regex("^(https?://|ssh://|file:///|[^/@]+@[^/:]+:).+", var.repo_url))
    error_message = "repo_url must be a Git URL: https://host/owner/repo.git, ssh://git@host/owner/repo.git or git@host:owner/repo.git."
  }
}

variable "repo_revision" {
  description = "Branch, tag or commit that Argo CD follows."
  type        = string
  default     = "main"

  validation {
    condition     = can(regex("^[^[:space:]]+$", var.repo_revision))
    error_message = "repo_revision must be a branch, tag or commit, without spaces."
  }
}

variable "working_copy" {
  description = "Path on the cluster's node where a working copy of this repository is mounted; Argo CD then reads its HEAD instead of repo_url. For kind only. Empty: repo_url."
  type        = string
  default     = ""

  validation {
    condition     = var.working_copy == "" || startswith(var.working_copy, "/")
    error_message = "working_copy must be an absolute path on the node (scripts/kind.sh mounts /repository), or empty."
  }
}

variable "chart_registry" {
  description = "OCI registry (host/path, no scheme) that mirrors every chart and image. Empty: upstream."
  type        = string
  default     = ""

  validation {
    condition     = !strcontains(var.chart_registry, "://") && !endswith(var.chart_registry, "/")
    error_message = "chart_registry must be host/path without a scheme and without a slash at the end, such as registry.example.com/mirror."
  }
}

variable "ingress_class" {
  description = "Class of Argo CD's Ingress, where there is a domain. Empty: the cluster's default."
  type        = string
  default     = ""
}

variable "domain" {
  description = "Domain under which Argo CD and Grafana get an Ingress. Empty: none; `make open` forwards their ports."
  type        = string
  default     = ""

  validation {
    condition     = var.domain == "" || can(regex("^([a-z0-9]([-a-z0-9]*[a-z0-9])?\\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?$", var.domain))
    error_message = "domain must be a DNS name such as platform.example.com, without a scheme, or empty."
  }
}

variable "kube_config_path" {
  description = "kubeconfig file of the cluster, or several separated by colons."
  type        = string
  default     = "~/.kube/config"
}

variable "kube_context" {
  description = "Context in the kubeconfig. Null: its current context."
  type        = string
  default     = null
}

variable "components_root" {
  description = "Folder that holds platform-apps/ and k8s/helm-charts/: this repository."
  type        = string
  default     = ".."
}
