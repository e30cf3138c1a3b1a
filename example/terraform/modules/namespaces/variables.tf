variable "platform" {
  description = "Value of the label app.kubernetes.io/part-of."
  type        = string
}

variable "namespaces" {
  description = "Pod Security Standard by namespace."
  type        = map(string)

  validation {
    condition     = alltrue([for level in values(var.namespaces) : contains(["restricted", "baseline", "privileged"], level)])
    error_message = "podSecurity must be restricted, baseline or privileged."
  }
}
