//! Made-up objects of the list endpoints, the same for the same arguments and day.

use chrono::Utc;
use chrono_tz::Tz;
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use super::generate::Random;
use super::hogql::iso;
use super::lists::of_person;
use super::nested;
use super::store::{Cohort, DAY, Group, Person, Tables, person_uuid};

const SECOND: i64 = 1_000_000;
/// Persons that are added.
const PERSONS: i64 = 130;
const GROUPS: i64 = 150;
const FIRST_COHORT: i64 = 216_000;

/// Fills every list and the tables next to them.
pub(crate) fn generate(project: u64, seed: u64, tables: &mut Tables) {
    let today = Utc::now().timestamp_micros().div_euclid(DAY) * DAY;
    let mut maker = Maker { project, random: Random(seed ^ project.rotate_left(17)), today };
    for index in 0..PERSONS {
        tables.put_person(maker.person(index));
    }
    for index in 0..GROUPS {
        tables.put_group(maker.group(index));
    }
    let mut persons: Vec<Person> = tables.persons().map(|person| Person::clone(person)).collect();
    persons.sort_by_key(|person| person.id);
    for (index, cohort) in (0..3).enumerate() {
        let people = persons.iter().skip(index).step_by(3).take(20).map(|person| person.id).collect();
        tables.cohorts.insert(FIRST_COHORT + cohort, Cohort { is_static: is_static(cohort), people });
    }
    let kinds: [Kind<'_>; 16] = [
        ("annotations", 30, &Maker::annotation),
        ("cohorts", 25, &Maker::cohort),
        ("feature_flags", 230, &Maker::feature_flag),
        ("insights", 250, &Maker::insight),
        ("actions", 40, &Maker::action),
        ("dashboards", 12, &Maker::dashboard),
        ("experiments", 15, &Maker::experiment),
        ("surveys", 8, &Maker::survey),
        ("session_recordings", 120, &|maker: &mut Maker, index| maker.recording(index, &persons)),
        ("session_recording_playlists", 4, &Maker::playlist),
        ("event_definitions", 210, &Maker::event_definition),
        ("property_definitions", 250, &Maker::property_definition),
        ("early_access_feature", 3, &Maker::early_access_feature),
        ("notebooks", 7, &Maker::notebook),
        ("hog_functions", 5, &Maker::hog_function),
        ("groups_types", 2, &Maker::group_type),
    ];
    for (name, count, make) in kinds {
        let objects = (0..count).map(|index| make(&mut maker, index)).collect();
        tables.lists.insert(name.to_owned(), objects);
    }
    nested::generate(project, today, tables);
}

type Kind<'k> = (&'k str, i64, &'k dyn Fn(&mut Maker, i64) -> Value);

fn is_static(cohort: i64) -> bool {
    cohort % 5 == 0
}

fn user() -> Value {
    json!({
        "id": 405_869, "uuid": "019c2351-c716-0000-37ba-0f2c008d919e", "distinct_id": "sandboxUser",
        "first_name": "Sam", "last_name": "Ünlü", "email": "sam@example.com", "is_email_verified": true,
        "hedgehog_config": null, "role_at_organization": "engineering",
    })
}

/// Both objects in one.
fn with(object: Value, more: Value) -> Value {
    let (Value::Object(mut object), Value::Object(more)) = (object, more) else { return Value::Null };
    object.extend(more);
    Value::Object(object)
}

struct Maker {
    project: u64,
    random: Random,
    /// When the current day began.
    today: i64,
}

impl Maker {
    /// Some time of the last days.
    fn micros(&mut self, days: u32) -> i64 {
        self.today - self.random.below(days * 86_400) * SECOND - self.random.below(1000) * 1000
    }

    fn when(&mut self, days: u32) -> String {
        iso(self.micros(days), Tz::UTC)
    }

    /// When an object was made and when it was changed.
    fn made(&mut self) -> (String, String) {
        let (one, other) = (self.micros(120), self.micros(120));
        (iso(one.min(other), Tz::UTC), iso(one.max(other), Tz::UTC))
    }

    fn uuid(&mut self) -> String {
        let at = self.micros(100);
        self.uuid_at(at).to_string()
    }

    fn uuid_at(&mut self, at: i64) -> Uuid {
        let mut rest = [0_u8; 10];
        rest.iter_mut().zip(self.random.next().to_be_bytes()).for_each(|(to, from)| *to = from);
        Builder::from_unix_timestamp_millis(u64::try_from(at / 1000).unwrap_or_default(), &rest).into_uuid()
    }

    fn person(&mut self, index: i64) -> Person {
        let distinct_id = format!("listed-{index}@exämple.com");
        let created_at = self.micros(300);
        let more = (0..self.random.below(3)).map(|_| self.uuid_at(created_at).to_string()).collect::<Vec<_>>();
        let plan = if index % 2 == 0 { "pro" } else { "free" };
        let name = format!("Zoë \"{index}\"");
        let properties = json!({"email": distinct_id, "name": name, "plan": plan, "logins": index});
        let last_seen_at = (index % 7 != 0).then(|| self.micros(20));
        Person {
            id: person_uuid(self.project, &distinct_id),
            created_at,
            properties: properties.to_string(),
            is_identified: index % 5 < 3,
            last_seen_at: last_seen_at.map(|at| at.max(created_at)),
            distinct_ids: std::iter::once(distinct_id).chain(more).collect(),
        }
    }

    fn group(&mut self, index: i64) -> Group {
        let created_at = self.micros(200);
        let (kind, key) =
            if index % 4 == 0 { (1, format!("proj/{index} ü")) } else { (0, format!("company-{index}")) };
        let properties = json!({"name": format!("Company {index}"), "employees": index * 10, "industry": null});
        Group {
            index: kind,
            key,
            created_at,
            updated_at: created_at + self.random.below(15) * 86_400 * SECOND + index,
            properties: properties.to_string(),
        }
    }

    fn group_type(&mut self, index: i64) -> Value {
        let kind = if index == 0 { "company" } else { "project" };
        json!({
            "group_type": kind, "group_type_index": index, "name_singular": null, "name_plural": null,
            "detail_dashboard": null, "default_columns": null, "created_at": iso(self.today - 300 * DAY, Tz::UTC),
        })
    }

    fn annotation(&mut self, index: i64) -> Value {
        let (created_at, updated_at) = self.made();
        let marker = self.micros(120).div_euclid(SECOND) * SECOND;
        let scope = match index % 3 {
            0 => "project",
            1 => "organization",
            _ => "dashboard_item",
        };
        json!({
            "id": 317_000 + index, "content": format!("Release {index} — «déployé»"),
            "date_marker": iso(marker, Tz::UTC), "creation_type": "USR", "dashboard_item": null,
            "dashboard_id": null, "dashboard_name": null, "insight_short_id": null, "insight_name": null,
            "insight_derived_name": null, "created_by": user(), "created_at": created_at, "updated_at": updated_at,
            "deleted": false, "scope": scope, "hidden_in_user_interface": null, "emoji": null,
        })
    }

    fn cohort(&mut self, index: i64) -> Value {
        let (created_at, calculated) = self.made();
        let property = json!({"key": "plan", "type": "person", "value": ["pro"], "operator": "exact"});
        let known = index % 4 != 0;
        json!({
            "id": FIRST_COHORT + index, "name": format!("Cohort {index}"), "description": "",
            "groups": [{"properties": [property], "action_id": null, "count": null, "days": null}], "deleted": false,
            "filters": {"properties": {"type": "OR", "values": [{"type": "AND", "values": [property]}]}},
            "query": null, "version": index % 5 + 1, "pending_version": index % 5 + 1, "is_calculating": false,
            "created_by": user(), "created_at": created_at, "last_calculation": known.then_some(calculated),
            "errors_calculating": 0, "last_error_message": null, "count": known.then_some(index * 13),
            "is_static": is_static(index), "cohort_type": null, "condition_type": null, "experiment_set": [],
        })
    }

    fn feature_flag(&mut self, index: i64) -> Value {
        let (created_at, updated_at) = self.made();
        let share = match self.random.below(4) {
            0 => json!(0),
            1 => json!(33.33),
            2 => json!(50),
            _ => json!(100),
        };
        let payloads = if index % 9 == 0 { json!({"true": "{\"a\": 1}"}) } else { json!({}) };
        let tags = if index % 5 == 0 { json!(["beta"]) } else { json!([]) };
        let object = json!({
            "id": 90_000 + index, "name": format!("Flag {index}"), "key": format!("flag-{index}"),
            "filters": {
                "groups": [{"variant": null, "properties": [], "rollout_percentage": share}], "payloads": payloads,
                "multivariate": null,
            },
            "deleted": false, "active": index % 3 != 0, "created_by": user(), "created_at": created_at,
            "updated_at": (index % 6 != 0).then_some(updated_at), "version": index % 7 + 1,
            "last_modified_by": (index % 2 == 1).then(user), "is_simple_flag": true, "rollout_percentage": share,
            "ensure_experience_continuity": false, "experiment_set": [], "surveys": [], "features": [],
        });
        let more = json!({
            "rollback_conditions": null, "performed_rollback": false, "can_edit": true, "tags": tags,
            "evaluation_tags": [], "usage_dashboard": null, "analytics_dashboards": [],
            "has_enriched_analytics": false, "user_access_level": "editor", "creation_context": "feature_flags",
            "is_remote_configuration": false, "has_encrypted_payloads": false, "status": "ACTIVE",
            "evaluation_runtime": "all", "last_called_at": null,
        });
        with(object, more)
    }

    fn insight(&mut self, index: i64) -> Value {
        let (created_at, updated_at) = self.made();
        let name = if index % 3 == 0 { String::new() } else { format!("Insight {index}") };
        let dashboard = 1 + index % 12;
        let series = json!([{"kind": "EventsNode", "event": "$pageview", "math": "total"}]);
        let object = json!({
            "id": 700_000 + index, "short_id": format!("Sh{:09x}", self.random.next() >> 28), "name": name,
            "derived_name": "Pageview count",
            "query": {"kind": "InsightVizNode", "source": {"kind": "TrendsQuery", "series": series}}, "order": null,
            "deleted": false, "dashboards": [dashboard],
            "dashboard_tiles": [{"id": index, "dashboard_id": dashboard, "deleted": null}], "last_refresh": null,
            "cache_target_age": null, "next_allowed_client_refresh": null, "result": null, "hasMore": null,
            "columns": null, "created_at": created_at, "created_by": user(), "description": "",
            "updated_at": updated_at, "tags": [], "favorited": index % 10 == 0,
        });
        let more = json!({
            "last_modified_at": updated_at, "last_modified_by": user(), "is_sample": false,
            "effective_restriction_level": 21, "effective_privilege_level": 37, "user_access_level": "editor",
            "timezone": null, "is_cached": false, "query_status": null, "hogql": null, "types": null, "alerts": [],
            "last_viewed_at": null,
        });
        with(object, more)
    }

    fn action(&mut self, index: i64) -> Value {
        let step = json!({
            "event": "$pageview", "properties": null, "selector": null, "url": "/pricing", "url_matching": "contains",
        });
        json!({
            "id": 5000 + index, "name": format!("Action {index}"), "description": "", "tags": [],
            "post_to_slack": false, "slack_message_format": "", "steps": [step], "created_at": self.when(120),
            "created_by": user(), "deleted": false, "is_calculating": false, "last_calculated_at": self.when(120),
            "team_id": self.project, "is_action": true, "bytecode_error": null, "pinned_at": null,
            "creation_context": null, "user_access_level": "editor",
        })
    }

    fn dashboard(&mut self, index: i64) -> Value {
        let accessed = self.when(5);
        json!({
            "id": 1 + index, "name": format!("Dashboard {index}"), "description": "", "pinned": index == 0,
            "created_at": self.when(120), "created_by": user(),
            "last_accessed_at": (index % 2 == 1).then_some(accessed), "last_viewed_at": null, "is_shared": false,
            "deleted": false, "creation_mode": "default", "tags": [], "restriction_level": 21,
            "effective_restriction_level": 21, "effective_privilege_level": 37, "user_access_level": "editor",
            "access_control_version": "v2", "last_refresh": null, "team_id": self.project,
        })
    }

    fn experiment(&mut self, index: i64) -> Value {
        let (created_at, updated_at) = self.made();
        let flag = format!("flag-{index}");
        let object = json!({
            "id": 3000 + index, "name": format!("Experiment {index}"), "description": "",
            "start_date": (index % 2 == 1).then_some(&created_at), "end_date": null, "feature_flag_key": flag,
            "feature_flag": {"id": 90_000 + index, "key": flag}, "holdout": null, "holdout_id": null,
            "exposure_cohort": null, "parameters": {"minimum_detectable_effect": 12.5}, "secondary_metrics": [],
            "saved_metrics": [], "filters": {}, "archived": false, "deleted": false, "created_by": user(),
        });
        let more = json!({
            "created_at": created_at, "updated_at": updated_at, "type": "product", "exposure_criteria": null,
            "metrics": [], "metrics_secondary": [], "stats_config": {"method": "bayesian"}, "conclusion": null,
            "conclusion_comment": null, "user_access_level": "editor",
        });
        with(object, more)
    }

    fn survey(&mut self, index: i64) -> Value {
        let question = json!({"id": self.uuid(), "type": "rating", "question": "¿Qué tal?", "scale": 10});
        json!({
            "id": self.uuid(), "name": format!("Survey {index}"), "description": "", "type": "popover",
            "schedule": "once", "linked_flag": null, "linked_flag_id": null, "targeting_flag": null,
            "internal_targeting_flag": null, "questions": [question], "conditions": null,
            "appearance": {"backgroundColor": "#eeeded"}, "created_at": self.when(120), "created_by": user(),
            "start_date": self.when(120), "end_date": null, "archived": false, "responses_limit": null,
            "feature_flag_keys": [], "iteration_count": null, "user_access_level": "editor",
        })
    }

    /// One every two hours, the newest first.
    fn recording(&mut self, index: i64, persons: &[Person]) -> Value {
        let start = self.today - index * 7200 * SECOND;
        let at = self.random.below(u32::try_from(persons.len()).unwrap_or(u32::MAX));
        let person = usize::try_from(at).ok().and_then(|at| persons.get(at));
        let distinct_id = person.and_then(|person| person.distinct_ids.first());
        json!({
            "id": self.uuid_at(start).to_string(), "distinct_id": distinct_id, "viewed": false, "viewers": [],
            "recording_duration": 60 + index, "active_seconds": 30, "inactive_seconds": 30 + index,
            "start_time": iso(start, Tz::UTC), "end_time": iso(start + (60 + index) * SECOND, Tz::UTC),
            "click_count": index, "keypress_count": 0, "mouse_activity_count": 5 * index, "console_log_count": 0,
            "console_warn_count": 0, "console_error_count": 0, "start_url": "https://shop.example.com/",
            "person": person.map(of_person), "storage": "object_storage_v2",
            "retention_period_days": 90, "snapshot_source": "web", "ongoing": false, "activity_score": 12.5,
        })
    }

    fn playlist(&mut self, index: i64) -> Value {
        let (created_at, modified_at) = self.made();
        json!({
            "id": 40 + index, "short_id": format!("pL{index:06}"), "name": format!("Playlist {index}"),
            "derived_name": null, "description": "", "pinned": false, "created_at": created_at, "created_by": user(),
            "deleted": false, "filters": {}, "last_modified_at": modified_at, "last_modified_by": user(),
            "type": "filters",
        })
    }

    fn event_definition(&mut self, index: i64) -> Value {
        json!({
            "id": self.uuid(), "name": format!("custom event {index}"), "owner": null, "description": "",
            "created_at": self.when(120), "updated_at": self.when(120), "updated_by": null,
            "last_seen_at": self.when(3), "last_updated_at": self.when(9), "verified": false, "verified_at": null,
            "verified_by": null, "hidden": false, "is_action": false, "post_to_slack": false, "tags": [],
            "default_columns": [],
        })
    }

    fn property_definition(&mut self, index: i64) -> Value {
        let kind = match index % 5 {
            0 => Some("String"),
            1 => Some("Numeric"),
            2 => Some("Boolean"),
            3 => Some("DateTime"),
            _ => None,
        };
        let of = match index {
            ..200 => "event",
            200..230 => "person",
            230..242 => "group",
            _ => "session",
        };
        json!({
            "id": self.uuid(), "name": format!("prop_{index}"), "is_numerical": index % 5 == 1,
            "property_type": kind, "tags": [], "is_seen_on_filtered_events": null, "description": "",
            "updated_at": self.when(120), "updated_by": null, "verified": false, "hidden": null, "_type": of,
        })
    }

    fn early_access_feature(&mut self, index: i64) -> Value {
        json!({
            "id": self.uuid(), "feature_flag": {"id": 90_000 + index, "key": format!("flag-{index}")},
            "name": format!("Feature {index}"), "description": "", "stage": "beta", "documentation_url": "",
            "payload": {}, "created_at": self.when(120),
        })
    }

    fn notebook(&mut self, index: i64) -> Value {
        let (created_at, modified_at) = self.made();
        json!({
            "id": self.uuid(), "short_id": format!("nB{index:06}"), "title": format!("Notebook {index}"),
            "deleted": false, "created_at": created_at, "created_by": user(), "last_modified_at": modified_at,
            "last_modified_by": user(), "user_access_level": "editor",
        })
    }

    fn hog_function(&mut self, index: i64) -> Value {
        let (created_at, updated_at) = self.made();
        json!({
            "id": self.uuid(), "type": "destination", "name": format!("Webhook {index}"), "description": "",
            "created_at": created_at, "created_by": user(), "updated_at": updated_at, "enabled": index % 2 == 0,
            "filters": null, "icon_url": null, "template": null, "status": null, "execution_order": null,
        })
    }
}
