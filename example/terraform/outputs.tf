locals {
  kubectl = var.kube_context == null ? "kubectl" : "kubectl --context ${var.kube_context}"
}

output "applications" {
  description = "Argo CD Applications, by component folder, and their namespaces."
  value       = { for name, component in local.components : name => component.namespace }
}

output "namespaces" {
  description = "Namespaces made here and the Pod Security Standard that each enforces."
  value       = module.namespaces.namespaces
}

output "argocd_url" {
  description = "Argo CD's address."
  value       = var.domain == "" ? "http://localhost:8081 (make open ENV=${var.environment})" : "https://argocd.${var.domain}"
}

output "argocd_login" {
  description = "How to log in to Argo CD the first time, as admin: this prints the password."
  value       = "${local.kubectl} -n argocd get secret argocd-initial-admin-secret -o go-template='{{.data.password | base64decode}}{{\"\\n\"}}'"
}

output "grafana_url" {
  description = "Grafana's address."
  value       = var.domain == "" ? "http://localhost:3000 (make open ENV=${var.environment})" : "https://grafana.${var.domain}"
}

output "grafana_login" {
  description = "How to log in to Grafana: this prints the administrator's name and password."
  value       = "${local.kubectl} -n observability get secret grafana-admin -o go-template='{{index .data \"admin-user\" | base64decode}} {{index .data \"admin-password\" | base64decode}}{{\"\\n\"}}'"
}
