# Which Applications there are, and what each says. Helm is mocked: nothing is installed.
mock_provider "helm" {}

variables {
  environment = "production"
}

run "every_folder_of_this_repository_is_an_application" {
  command = plan

  assert {
    condition = toset(keys(output.applications)) == toset([
      for file in setunion(fileset("..", "platform-apps/*/application.yaml"), fileset("..", "k8s/helm-charts/*/application.yaml")) :
      basename(dirname(file))
    ])
    error_message = "Not every folder with an application.yaml is an Application."
  }
  assert {
    condition     = length(output.applications) > 0
    error_message = "No folder was found."
  }
  assert {
    condition     = !contains(keys(output.applications), "otel-instrumentation")
    error_message = "otel-instrumentation belongs to the apps, as their second source."
  }
  assert {
    condition = alltrue([
      for name, app in module.argocd_app : app.application.project == var.team && app.application.project != "default"
    ])
    error_message = "An Application is outside the team's project."
  }
  assert {
    condition     = alltrue([for app in module.argocd_app : contains(app.application.finalizers, "resources-finalizer.argocd.argoproj.io")])
    error_message = "An Application without the finalizer leaves its resources behind."
  }
  assert {
    condition = alltrue(flatten([
      for app in module.argocd_app : [for source in app.application.sources : contains(module.argocd_server.project.sourceRepos, source.repoURL)]
    ]))
    error_message = "An Application reads a repository that the project does not permit."
  }
}

run "an_app_comes_with_its_instrumentation" {
  command = plan

  assert {
    condition = alltrue([
      for file in fileset(var.components_root, "k8s/helm-charts/*/application.yaml") :
      contains([for source in module.argocd_app[basename(dirname(file))].application.sources : try(source.path, "")], "platform-apps/otel-instrumentation")
    ])
    error_message = "An app's second source is platform-apps/otel-instrumentation."
  }
}

run "a_folder_is_all_it_takes" {
  command = plan

  variables {
    components_root = "tests/fixture"
    repo_url        = "https://git.example.com/acme/platform.git"
    repo_revision   = "v1"
  }

  assert {
    condition     = output.applications == { full = "observability", plain = "observability", shop = "shop" }
    error_message = "Expected the three folders of the fixture."
  }
  assert {
    condition = module.argocd_app["plain"].application.sources[0] == {
      repoURL        = "https://git.example.com/acme/platform.git"
      targetRevision = "v1"
      path           = "platform-apps/plain"
      helm = {
        releaseName = "plain"
        valueFiles = tolist([
          "/platform-apps/*/platform.yaml", "/k8s/helm-charts/*/platform.yaml",
          "/platform-apps/*/platform-production.yaml", "/k8s/helm-charts/*/platform-production.yaml",
          "values.yaml", "values-production.yaml",
        ])
        ignoreMissingValueFiles = true
      }
    }
    error_message = "A folder that names no source is its own source, with what every folder says and the environment's value files."
  }
  assert {
    condition = module.argocd_app["plain"].application.additionalAnnotations["argocd.argoproj.io/manifest-generate-paths"] == join(";", [
      ".", "/platform-apps/*/platform.yaml", "/k8s/helm-charts/*/platform.yaml",
      "/platform-apps/*/platform-production.yaml", "/k8s/helm-charts/*/platform-production.yaml",
    ])
    error_message = "A commit to what another folder says renders this one anew."
  }
  assert {
    condition = alltrue([
      for option in ["ServerSideApply=true", "SkipDryRunOnMissingResource=true", "RespectIgnoreDifferences=true"] :
      contains(module.argocd_app["plain"].application.syncPolicy.syncOptions, option)
    ])
    error_message = "A default sync option is missing."
  }
  assert {
    condition = (
      module.argocd_app["plain"].application.syncPolicy.automated == { enabled = true, prune = true, selfHeal = true }
      && module.argocd_app["plain"].application.syncPolicy.retry.limit > 0
    )
    error_message = "Applications sync, prune and heal by themselves, and retry: that is how they wait for one another."
  }
}

run "application_yaml_says_what_differs" {
  command = plan

  variables {
    components_root = "tests/fixture"
  }

  assert {
    condition     = module.argocd_app["full"].application.additionalAnnotations["argocd.argoproj.io/compare-options"] == "ServerSideDiff=true"
    error_message = "Annotations of application.yaml are missing."
  }
  assert {
    condition = module.argocd_app["full"].application.syncPolicy.syncOptions == tolist([
      "ServerSideApply=true", "SkipDryRunOnMissingResource=true", "RespectIgnoreDifferences=true", "Replace=true",
    ])
    error_message = "Sync options are the defaults, then those of application.yaml, each once."
  }
  assert {
    condition     = length(module.argocd_app["full"].application.ignoreDifferences) == 1 && length(module.argocd_app["full"].application.info) == 1
    error_message = "ignoreDifferences or info of application.yaml are missing."
  }
}

run "an_oci_chart_is_a_source" {
  command = plan

  variables {
    components_root = "tests/fixture"
    environment     = "local"
  }

  assert {
    condition     = module.argocd_app["shop"].application.sources[0].repoURL == "ghcr.io/example/apps" && module.argocd_app["shop"].application.sources[0].chart == "shop" && module.argocd_app["shop"].application.sources[0].targetRevision == "0.1.0"
    error_message = "A source with a chart keeps its own repository and version."
  }
  assert {
    condition = module.argocd_app["shop"].application.sources[0].helm == {
      releaseName             = "store"
      valueFiles              = tolist(["values.yaml", "values-local.yaml"])
      ignoreMissingValueFiles = true
    }
    error_message = "A source may override Helm's settings, and keeps the others."
  }
  assert {
    condition     = module.argocd_app["shop"].application.sources[1].repoURL == var.repo_url && module.argocd_app["shop"].application.sources[1].path == "platform-apps/otel-instrumentation"
    error_message = "A second source with a path is read from this repository."
  }
}

run "a_working_copy_stands_in_for_the_repository" {
  command = plan

  variables {
    components_root = "tests/fixture"
    working_copy    = "/repository"
  }

  assert {
    condition     = module.argocd_app["plain"].application.sources[0].repoURL == "file:///repository" && module.argocd_app["plain"].application.sources[0].targetRevision == "HEAD"
    error_message = "Applications must read the HEAD of the working copy."
  }
  assert {
    condition     = !contains(module.argocd_server.project.sourceRepos, var.repo_url) && contains(module.argocd_server.project.sourceRepos, "file:///repository")
    error_message = "The project must permit the working copy in place of repo_url."
  }
}

run "a_component_needs_a_namespace" {
  command = plan

  module {
    source = "./modules/argocd-app"
  }
  variables {
    name       = "broken"
    project    = "payments"
    repository = { repoURL = "https://git.example.com/x.git", targetRevision = "main" }
    component  = { sources = [{ path = "platform-apps/broken" }] }
  }
  expect_failures = [var.component]
}

run "a_misspelt_key_is_refused" {
  command = plan

  module {
    source = "./modules/argocd-app"
  }
  variables {
    name       = "broken"
    project    = "payments"
    repository = { repoURL = "https://git.example.com/x.git", targetRevision = "main" }
    component  = { namespace = "observability", sources = [{ path = "platform-apps/broken" }], syncOption = ["Replace=true"] }
  }
  expect_failures = [var.component]
}

run "a_source_is_a_path_or_a_chart" {
  command = plan

  module {
    source = "./modules/argocd-app"
  }
  variables {
    name       = "broken"
    project    = "payments"
    repository = { repoURL = "https://git.example.com/x.git", targetRevision = "main" }
    component  = { namespace = "observability", sources = [{ repoURL = "ghcr.io/example" }] }
  }
  expect_failures = [var.component]
}

run "a_folder_that_another_cannot_do_without_is_missed" {
  command = plan

  module {
    source = "./modules/argocd-app"
  }
  variables {
    name       = "broken"
    project    = "payments"
    repository = { repoURL = "https://git.example.com/x.git", targetRevision = "main" }
    component  = { namespace = "observability", sources = [{ path = "platform-apps/broken" }], requires = ["plain", "gone"] }
    folders    = ["broken", "plain"]
  }
  expect_failures = [var.component]
}

run "a_cluster_scoped_kind_has_its_group" {
  command = plan

  module {
    source = "./modules/argocd-app"
  }
  variables {
    name       = "broken"
    project    = "payments"
    repository = { repoURL = "https://git.example.com/x.git", targetRevision = "main" }
    component  = { namespace = "observability", sources = [{ path = "platform-apps/broken" }], clusterKinds = ["ClusterRole"] }
  }
  expect_failures = [var.component]
}

run "the_default_project_is_refused" {
  command = plan

  module {
    source = "./modules/argocd-app"
  }
  variables {
    name       = "plain"
    project    = "default"
    repository = { repoURL = "https://git.example.com/x.git", targetRevision = "main" }
    component  = { namespace = "observability", sources = [{ path = "platform-apps/plain" }] }
  }
  expect_failures = [var.project]
}
