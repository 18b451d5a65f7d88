//! Keys, scopes, projects: who may do what, in PostHog's words.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ApiError;
use super::instance::Retention;
use super::paging::page;
use super::server::{Answer, Call};
use super::{Key, Project, Shared};

/// Project secret keys begin like this. PostHog lets them use flags and experiments, as far as their scopes
/// go, and nothing that a connector reads besides.
const PROJECT_SECRET: &str = "phs_";
const ORGANIZATION: &str = "019a0000-0000-7000-8000-00000000c0de";
const CREATED: &str = "2025-01-15T09:30:00.123456Z";

/// The key of the request.
///
/// A project secret key (`phs_`) is only one where PostHog knows of such keys, and no key at all elsewhere.
pub(crate) fn authenticate<'a>(shared: &'a Arc<Shared>, call: &Call, segments: &[&str]) -> Result<&'a Key, ApiError> {
    let refuse = |code: &str, detail: &str| {
        let challenge =
            format!("Bearer resource_metadata=\"http://{}/.well-known/oauth-protected-resource\"", call.header("host"));
        ApiError::new(401, "authentication_error", code, detail).header("www-authenticate", challenge)
    };
    let (scheme, value) = call.header("authorization").split_once(' ').unwrap_or_default();
    let known = match segments {
        ["api", "projects" | "environments", _, "experiments" | "feature_flags", ..] => true,
        _ => !value.trim().starts_with(PROJECT_SECRET),
    };
    if !scheme.eq_ignore_ascii_case("bearer") || value.trim().is_empty() || !known {
        return Err(refuse("not_authenticated", "Authentication credentials were not provided."));
    }
    shared.keys.iter().find(|key| key.value == value.trim()).ok_or_else(|| {
        refuse("authentication_failed", "Personal API key found in request Authorization header is invalid.")
    })
}

/// The project of a path, if the key may use it with that scope.
pub(crate) fn project(shared: &Shared, key: &Key, id: &str, scope: &str) -> Result<u64, ApiError> {
    let id = if id == "@current" {
        let first = shared.projects.first().map(|(project, _)| project.id);
        key.projects.as_ref().and_then(|own| own.first().copied()).or(first)
    } else {
        id.parse().ok()
    };
    let id = id.filter(|id| shared.project(*id).is_some()).ok_or_else(ApiError::not_found)?;
    require(key, scope)?;
    if key.projects.as_ref().is_some_and(|own| !own.contains(&id)) {
        let detail = format!("API key does not have access to the requested project: ID {id}.");
        return Err(ApiError::denied(detail));
    }
    Ok(id)
}

fn require(key: &Key, scope: &str) -> Result<(), ApiError> {
    let write = scope.replace(":read", ":write");
    let allowed = |own: &String| own == "*" || own == scope || *own == write;
    if key.scopes.is_empty() || key.scopes.iter().any(allowed) {
        return Ok(());
    }
    Err(ApiError::denied(format!("API key missing required scope '{scope}'")))
}

/// What isn't below a project can't be used with keys of single projects.
fn unscoped(key: &Key, scope: &str) -> Result<(), ApiError> {
    require(key, scope)?;
    if key.projects.is_some() {
        return Err(ApiError::denied("API keys with scoped projects are only supported on project-based endpoints."));
    }
    Ok(())
}

/// `GET` of everything that is about the account.
pub(crate) fn answer(shared: &Shared, key: &Key, call: &Call, segments: &[&str]) -> Result<Answer, ApiError> {
    let projects = || shared.projects.iter().map(|(project, _)| basic(project)).collect::<Vec<_>>();
    match segments {
        ["api", "personal_api_keys", "@current"] => Ok(Answer::json(&json!({
            "id": "sandbox-key", "label": "sandbox", "value": null, "mask_value": "phx_...", "created_at": CREATED,
            "last_used_at": CREATED, "last_rolled_at": null, "user_id": 1, "scopes": key.scopes,
            "scoped_teams": key.projects.clone().unwrap_or_default(), "scoped_organizations": [],
        }))),
        ["api", "personal_api_keys"] => Err(ApiError::denied("This action does not support Personal API Key access")),
        ["api", "users", "@me"] => {
            require(key, "user:read")?;
            let organization = organization(shared);
            Ok(Answer::json(&json!({
                "id": 1, "uuid": "019a0000-0000-7000-8000-000000000001", "distinct_id": "sandbox", "first_name": "Sam",
                "last_name": "Ünlü", "email": "sam@example.com", "date_joined": CREATED,
                "team": projects().first(), "organization": organization, "organizations": [organization],
            })))
        }
        ["api", "organizations"] => {
            unscoped(key, "organization:read")?;
            Ok(Answer::json(&page(call, vec![organization(shared)], None)))
        }
        ["api", "organizations", ORGANIZATION | "@current"] => {
            unscoped(key, "organization:read")?;
            Ok(Answer::json(&organization(shared)))
        }
        ["api", "projects" | "environments"] | ["api", "organizations", ORGANIZATION | "@current", "projects"] => {
            unscoped(key, "project:read")?;
            Ok(Answer::json(&page(call, projects(), None)))
        }
        ["api", "projects" | "environments", id] => {
            let id = project(shared, key, id, "project:read")?;
            let (project, _) = shared.project(id).ok_or_else(ApiError::not_found)?;
            let retention = shared.read_tables().get(&id).map(|tables| tables.retention).unwrap_or_default();
            Ok(Answer::json(&full(project, retention)))
        }
        _ => Err(ApiError::not_found()),
    }
}

fn basic(project: &Project) -> Value {
    let uuid = Uuid::new_v5(&Uuid::NAMESPACE_URL, project.id.to_string().as_bytes());
    json!({
        "id": project.id, "uuid": uuid.to_string(), "organization": ORGANIZATION, "project_id": project.id,
        "api_token": project.token, "name": project.name, "completed_snippet_onboarding": false,
        "has_completed_onboarding_for": {"product_analytics": true}, "ingested_event": true, "is_demo": false,
        "timezone": project.timezone, "access_control": false,
    })
}

fn full(project: &Project, retention: Retention) -> Value {
    let mut object = basic(project);
    let more = json!({
        "product_description": null, "created_at": CREATED, "updated_at": CREATED, "effective_membership_level": 15,
        "has_group_types": false, "group_types": [], "app_urls": ["https://shop.example.com"], "anonymize_ips": false,
        "test_account_filters": [], "week_start_day": null, "primary_dashboard": null, "event_retention_months": retention.months,
        "events_retention_enforced": retention.enforced,
    });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

fn organization(shared: &Shared) -> Value {
    let teams: Vec<Value> = shared.projects.iter().map(|(project, _)| basic(project)).collect();
    json!({
        "id": ORGANIZATION, "name": "Sandbox", "slug": "sandbox", "created_at": CREATED, "updated_at": CREATED,
        "membership_level": 15, "plugins_access_level": 3, "teams": teams, "member_count": 1,
    })
}
