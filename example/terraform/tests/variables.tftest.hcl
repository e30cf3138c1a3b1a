# Wrong settings are refused before anything is planned.
mock_provider "helm" {}

variables {
  environment     = "local"
  components_root = "tests/fixture"
}

run "environment_is_a_dns_label" {
  command = plan
  variables {
    environment = "Production"
  }
  expect_failures = [var.environment]
}

run "team_is_not_default" {
  command = plan
  variables {
    team = "default"
  }
  expect_failures = [var.team]
}

run "team_fits_into_a_release_name" {
  command = plan
  variables {
    team = "abbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  }
  expect_failures = [var.team]
}

run "repo_url_has_a_form_that_git_knows" {
  command = plan
  variables {
    repo_url = "github.com/acme/platform"
  }
  expect_failures = [var.repo_url]
}

run "repo_revision_is_one_word" {
  command = plan
  variables {
    repo_revision = "my branch"
  }
  expect_failures = [var.repo_revision]
}

run "working_copy_is_absolute" {
  command = plan
  variables {
    working_copy = "repository"
  }
  expect_failures = [var.working_copy]
}

run "chart_registry_has_no_scheme" {
  command = plan
  variables {
    chart_registry = "oci://registry.example.com"
  }
  expect_failures = [var.chart_registry]
}

run "domain_has_no_scheme" {
  command = plan
  variables {
    domain = "https://example.com"
  }
  expect_failures = [var.domain]
}

run "platform_is_a_dns_label" {
  command = plan
  variables {
    platform = "Acme Platform"
  }
  expect_failures = [var.platform]
}

run "argocd_is_no_destination" {
  command = plan
  module {
    source = "./modules/argocd-server"
  }
  variables {
    platform     = "acme"
    team         = "payments"
    namespaces   = ["argocd"]
    source_repos = ["https://git.example.com/x.git"]
  }
  expect_failures = [var.namespaces]
}

run "a_star_is_no_repository" {
  command = plan
  module {
    source = "./modules/argocd-server"
  }
  variables {
    platform     = "acme"
    team         = "payments"
    namespaces   = ["shop"]
    source_repos = ["*"]
  }
  expect_failures = [var.source_repos]
}
