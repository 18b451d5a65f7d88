//! `organizations`: the organizations that the key belongs to, one record each.
//!
//! From `GET /api/organizations/` (`posthog/api/organization.py`). Their projects are left out, since they are
//! the stream `projects`, and so is the number of the customer at PostHog's payment service.

use super::account::AccountStream;

pub static ORGANIZATIONS: AccountStream = AccountStream {
    stream: "organizations",
    scope: "organization:read",
    fields: &[
        ("id", "string", "Identifies the organization."),
        ("name", "string", "Name of the organization."),
        ("slug", "string", "Name of the organization in URLs."),
        ("created_at", "date-time", "When the organization was created."),
        ("updated_at", "date-time", "When its settings were changed last."),
        ("membership_level", "integer", "Access level of the key's owner."),
        ("plugins_access_level", "integer", "Access level of members to plugins."),
        ("available_product_features", "array", "Features of the organization's plan."),
        ("is_member_join_email_enabled", "boolean", "Whether members are notified of new members."),
        ("metadata", "object", "Information about the instance."),
        ("enforce_2fa", "boolean", "Whether members need a second factor."),
        ("members_can_invite", "boolean", "Whether all members may invite others."),
        ("members_can_use_personal_api_keys", "boolean", "Whether all members may use API keys."),
        ("member_count", "integer", "Number of members."),
        ("is_ai_data_processing_approved", "boolean", "Whether AI services may process its data."),
        ("default_experiment_stats_method", "string", "How new experiments are evaluated."),
        ("logo_media_id", "string", "Identifies the logo."),
    ],
};
