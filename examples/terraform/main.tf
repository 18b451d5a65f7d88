# Registers source-posthog in an Airbyte workspace of one's own and makes a source with it.

terraform {
  required_version = ">= 1.5"
  required_providers {
    airbyte = {
      source  = "airbytehq/airbyte"
      version = "~> 1.3"
    }
  }
}

variable "airbyte_url" {
  description = "Where Airbyte's user interface is, without a slash at the end."
  type        = string
  default     = "http://localhost:8000"
}

variable "airbyte_client_id" {
  description = "Client ID of an Airbyte application."
  type        = string
}

variable "airbyte_client_secret" {
  description = "Client secret of that application."
  type        = string
  sensitive   = true
}

variable "workspace_id" {
  description = "ID of the workspace, as in the URL of its pages."
  type        = string
}

variable "posthog_api_key" {
  description = "A personal API key of PostHog (phx_...)."
  type        = string
  sensitive   = true
}

provider "airbyte" {
  server_url    = "${var.airbyte_url}/api/public/v1"
  token_url     = "${var.airbyte_url}/api/public/v1/applications/token"
  client_id     = var.airbyte_client_id
  client_secret = var.airbyte_client_secret
}

resource "airbyte_source_definition" "posthog" {
  name              = "PostHog (source-posthog)"
  workspace_id      = var.workspace_id
  docker_repository = "source-posthog"
  docker_image_tag  = "0.1.0"
}

resource "airbyte_source" "posthog" {
  name          = "PostHog"
  workspace_id  = var.workspace_id
  definition_id = airbyte_source_definition.posthog.id

  configuration = jsonencode({
    api_key    = var.posthog_api_key
    base_url   = "https://us.posthog.com"
    start_date = "2026-01-01T00:00:00Z"
  })

  resource_allocation = {
    job_specific = [{
      job_type = "sync"
      resource_requirements = {
        cpu_request    = "0.1"
        memory_request = "64Mi"
        memory_limit   = "128Mi"
      }
    }]
  }
}
