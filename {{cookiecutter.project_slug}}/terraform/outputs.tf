locals {
  kubectl  = var.kube_context == null ? "kubectl" : "kubectl --context ${var.kube_context}"
  password = "-o go-template='{{index .data \"%s\" | base64decode}}{{\"\\n\"}}'"
}

output "applications" {
  description = "Argo CD Applications, by component folder, and their namespaces."
  value       = { for name, component in local.components : name => component.namespace }
}

output "namespaces" {
  description = "Namespaces made here and the Pod Security Standard that each enforces."
  value       = module.namespaces.namespaces
}

output "project" {
  description = "The team's Argo CD project: what its Applications may read, where they may deploy, and which cluster-scoped kinds."
  value       = module.argocd_server.project
}

output "argocd_url" {
  description = "Argo CD's address."
  value       = var.domain == "" ? "http://localhost:8081 (make open ENV=${var.environment})" : "https://argocd.${var.domain}"
}

output "argocd_login" {
  description = "How to log in to Argo CD the first time, as admin: this prints the password."
  value       = "${local.kubectl} -n argocd get secret argocd-initial-admin-secret ${format(local.password, "password")}"
}

output "grafana_url" {
  description = "Grafana's address."
  value       = var.domain == "" ? "http://localhost:3000 (make open ENV=${var.environment})" : "https://grafana.${var.domain}"
}

output "grafana_login" {
  description = "How to log in to Grafana: this prints the administrator's name, then the password."
  value = join(" && ", [
    for key in ["admin-user", "admin-password"] :
    "${local.kubectl} -n observability get secret grafana-admin ${format(local.password, key)}"
  ])
}
