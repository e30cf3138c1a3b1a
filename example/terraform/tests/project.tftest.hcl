# What the team's project lets in, which namespaces there are, and how Argo CD itself is set.
mock_provider "helm" {}

variables {
  environment     = "production"
  team            = "shop"
  components_root = "tests/fixture"
  repo_url        = "https://git.example.com/acme/platform.git"
}

run "the_project_permits_what_the_components_need" {
  command = plan

  assert {
    condition = module.argocd_server.project.sourceRepos == tolist([
      "ghcr.io/example/apps",
      "ghcr.io/example/charts",
      "https://charts.example.com",
      "https://git.example.com/acme/platform.git",
    ])
    error_message = "Source repositories must be this repository, the dependencies' registries and the Applications' own sources, once each: ${join(" ", module.argocd_server.project.sourceRepos)}"
  }
  assert {
    condition     = toset([for destination in module.argocd_server.project.destinations : destination.namespace]) == toset(["observability", "shop"])
    error_message = "Destinations must be the components' namespaces and no other."
  }
  assert {
    condition = module.argocd_server.project.clusterResourceWhitelist == [
      { group = "rbac.authorization.k8s.io", kind = "ClusterRole" },
      { group = "scheduling.k8s.io", kind = "PriorityClass" },
    ]
    error_message = "Cluster-scoped kinds must be those that the components bring, once each."
  }
  assert {
    condition     = alltrue([for kind in module.argocd_server.project.clusterResourceWhitelist : kind.group != "*" && kind.kind != "*" && kind.kind != "Namespace"])
    error_message = "Cluster-scoped kinds are named one by one, and namespaces are Terraform's."
  }
}

run "namespaces_are_as_strict_as_their_components_allow" {
  command = plan

  assert {
    condition     = output.namespaces == tomap({ argocd = "restricted", observability = "privileged", shop = "restricted" })
    error_message = "The least strict component decides; without a word it is restricted."
  }
}

run "a_working_copy_needs_a_host_path" {
  command = plan

  variables {
    working_copy = "/repository"
  }

  assert {
    condition     = output.namespaces["argocd"] == "privileged"
    error_message = "hostPath volumes are admitted by `privileged` only."
  }
  assert {
    condition     = strcontains(join("\n", module.argocd_server.values), "directory = /repository/.git")
    error_message = "Git needs to be told that the working copy of another owner is safe."
  }
}

run "the_team_works_in_its_project_only" {
  command = plan

  assert {
    condition = alltrue([
      for line in compact(split("\n", module.argocd_server.rbac_policy)) :
      startswith(line, "g, shop, role:shop") || can(regex("^p, role:shop, (applications|logs), [^,]+, shop/\\*, allow$|^p, role:shop, projects, get, shop, allow$", line))
    ])
    error_message = "A rule reaches beyond the project: ${module.argocd_server.rbac_policy}"
  }
}

run "no_domain_no_ingress" {
  command = plan

  assert {
    condition     = alltrue([for values in module.argocd_server.values : try(yamldecode(values).server.ingress.enabled, false) == false])
    error_message = "An Ingress without a domain."
  }
  assert {
    condition     = startswith(output.argocd_url, "http://localhost") && startswith(output.grafana_url, "http://localhost")
    error_message = "Without a domain the addresses are forwarded ports."
  }
}

run "a_domain_brings_an_ingress" {
  command = plan

  variables {
    domain        = "example.com"
    ingress_class = "traefik"
  }

  assert {
    condition     = anytrue([for values in module.argocd_server.values : try(yamldecode(values).server.ingress.ingressClassName, "") == "traefik"])
    error_message = "The Ingress must be of the class that was asked for."
  }
  assert {
    condition     = anytrue([for values in module.argocd_server.values : try(yamldecode(values).server.ingress.enabled, false)]) && anytrue([for values in module.argocd_server.values : try(yamldecode(values).global.domain, "") == "argocd.example.com"])
    error_message = "Argo CD needs an Ingress argocd.example.com."
  }
  assert {
    condition     = output.argocd_url == "https://argocd.example.com" && output.grafana_url == "https://grafana.example.com"
    error_message = "Addresses must be below the domain."
  }
}

run "a_mirror_serves_charts_and_images" {
  command = plan

  variables {
    chart_registry = "registry.example.com/mirror"
  }

  assert {
    condition     = strcontains(join("\n", module.argocd_server.values), "registry.example.com/mirror/argoproj/argocd") && strcontains(join("\n", module.argocd_server.values), "registry.example.com/mirror/docker/library/haproxy")
    error_message = "Argo CD's images must come from the mirror."
  }
}

run "an_environment_picks_argo_cds_values" {
  command = plan

  assert {
    condition     = anytrue([for values in module.argocd_server.values : try(yamldecode(values)["redis-ha"].enabled, false)])
    error_message = "Production runs Redis in high availability."
  }
}

run "a_laptop_runs_one_of_each" {
  command = plan

  variables {
    environment = "local"
  }

  assert {
    condition     = !anytrue([for values in module.argocd_server.values : try(yamldecode(values)["redis-ha"].enabled, false)])
    error_message = "A laptop has no three nodes for Redis."
  }
}
