//! `organizations`: the organizations that the key belongs to, one record each.
//!
//! From `GET /api/organizations/` (`posthog/api/organization.py`). Their projects are left out, since they are
//! the stream `projects`, and so is the number of the customer at PostHog's payment service.

use super::account::AccountStream;
use super::column::{Column, Kind};

pub static ORGANIZATIONS: AccountStream = AccountStream {
    stream: "organizations",
    scope: "organization:read",
    fields: &[
        Column::new("id", Kind::String, "Identifies the organization."),
        Column::new("name", Kind::String, "Name of the organization."),
        Column::new("slug", Kind::String, "Name of the organization in URLs."),
        Column::new("created_at", Kind::Timestamp, "When the organization was created."),
        Column::new("updated_at", Kind::Timestamp, "When its settings were changed last."),
        Column::new("membership_level", Kind::Integer, "Access level of the key's owner."),
        Column::new("plugins_access_level", Kind::Integer, "Access level of members to plugins."),
        Column::new("available_product_features", Kind::List, "Features of the organization's plan."),
        Column::new("is_member_join_email_enabled", Kind::Boolean, "Whether members are notified of new members."),
        Column::new("metadata", Kind::Json, "Information about the instance."),
        Column::new("enforce_2fa", Kind::Boolean, "Whether members need a second factor."),
        Column::new("members_can_invite", Kind::Boolean, "Whether all members may invite others."),
        Column::new("members_can_use_personal_api_keys", Kind::Boolean, "Whether all members may use API keys."),
        Column::new("member_count", Kind::Integer, "Number of members."),
        Column::new("is_ai_data_processing_approved", Kind::Boolean, "Whether AI services may process its data."),
        Column::new("default_experiment_stats_method", Kind::String, "How new experiments are evaluated."),
        Column::new("logo_media_id", Kind::String, "Identifies the logo."),
    ],
};
