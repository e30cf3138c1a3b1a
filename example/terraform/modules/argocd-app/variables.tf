variable "name" {
  description = "The component's folder: name of the Application and of its Helm release."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$", var.name))
    error_message = "A component's folder must be a DNS label of at most 42 characters: Helm limits release names to 53."
  }
}

variable "component" {
  description = "The folder's application.yaml: namespace and sources, optionally requires, clusterKinds, annotations and others."
  type        = any

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.component.namespace))
    error_message = "application.yaml needs `namespace:`, a DNS label."
  }

  validation {
    condition     = try(length(var.component.sources) > 0 && alltrue([for source in var.component.sources : can(source.path) != can(source.chart)]), false)
    error_message = "Each source in application.yaml needs either `path:` (a folder of this repository) or `chart:` with `repoURL:` and `targetRevision:`."
  }

  validation {
    condition = length(setsubtract(try(keys(var.component), []), [
      "namespace", "podSecurity", "sources", "requires", "clusterKinds", "annotations", "syncOptions", "ignoreDifferences", "info",
    ])) == 0
    error_message = "application.yaml knows namespace, podSecurity, sources, requires, clusterKinds, annotations, syncOptions, ignoreDifferences and info, nothing else."
  }

  validation {
    condition     = length(setsubtract(try(var.component.requires, []), var.folders)) == 0
    error_message = "${var.name} cannot do without ${join(", ", setsubtract(try(var.component.requires, []), var.folders))}, which is not there. Put it back, or delete ${var.name} too, or, when something else does its work, take it out of `requires:` in ${var.name}/application.yaml."
  }

  validation {
    condition     = alltrue([for kind in try(var.component.clusterKinds, []) : can(regex("^[a-z0-9.-]*/[A-Z][A-Za-z0-9]*$", kind))])
    error_message = "clusterKinds in application.yaml are `group/Kind`, such as rbac.authorization.k8s.io/ClusterRole."
  }
}

variable "folders" {
  description = "Every component folder of the repository: what `requires` in application.yaml may name."
  type        = list(string)
  default     = []
}

variable "project" {
  description = "Argo CD project that the Application belongs to."
  type        = string

  validation {
    condition     = var.project != "default"
    error_message = "The project `default` allows everything: use the team's own."
  }
}

variable "environment" {
  description = "Picks the value files: values.yaml, then values-<environment>.yaml where present."
  type        = string
}

variable "repository" {
  description = "This repository, for sources that give a path only."
  type        = object({ repoURL = string, targetRevision = string })
}

variable "chart_registry" {
  description = "OCI registry that mirrors the charts. Empty: upstream."
  type        = string
  default     = ""
}
