//! Makes a script shorter that lets a life fail.

use super::script::{Mode, Script, Step, Sync};

/// Scripts that lack something of this one, the largest parts first.
pub(super) fn shorter(script: &Script) -> Vec<Script> {
    let mut found = Vec::new();
    let mut with = |steps: Vec<Step>| {
        if steps != script.steps {
            found.push(Script { steps, ..script.clone() });
        }
    };
    let replaced = |at: usize, step: Step| {
        let mut steps = script.steps.clone();
        steps[at] = step;
        steps
    };
    for at in 0..script.steps.len() {
        let mut steps = script.steps.clone();
        steps.remove(at);
        with(steps);
    }
    let first = script.steps.iter().find_map(|step| match step {
        Step::Sync(sync) => Some(sync.settings.clone()),
        _ => None,
    });
    for (at, step) in script.steps.iter().enumerate() {
        match step {
            Step::Sync(sync) => {
                let mut simpler = |sync: Sync| with(replaced(at, Step::Sync(Box::new(sync))));
                let sync = || Sync::clone(sync);
                simpler(Sync { killed_after: None, ..sync() });
                simpler(Sync { trouble: None, ..sync() });
                simpler(Sync { appearing: Vec::new(), ..sync() });
                simpler(Sync { mode: Mode::Incremental, ..sync() });
                if let Some(settings) = first.clone() {
                    simpler(Sync { settings, ..sync() });
                }
            }
            Step::Arrive(rows) => {
                let mut size = rows.len().div_ceil(2);
                while size > 0 {
                    for from in (0..rows.len()).step_by(size) {
                        let mut rest = rows.clone();
                        rest.drain(from..rows.len().min(from + size));
                        with(replaced(at, Step::Arrive(rest)));
                    }
                    size /= 2;
                }
            }
            _ => {}
        }
    }
    found
}
