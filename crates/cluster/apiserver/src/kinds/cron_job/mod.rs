//! CronJobs: jobs that are made again and again. Whether a schedule can be read is in
//! [`schedule`].

mod schedule;

use api::names::DNS_LABEL_MAX;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    job::spec as job_spec,
    path::Path,
    pod_spec,
    pods_by_template::{CONTAINERS, IMAGES, SELECTOR, cells, name_warning},
    print::{self, AGE, NAME, column, number},
    rules,
    value::{Read, object_mut, set_default},
};

pub(super) static CRON_JOB: Kind = Kind {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    schema: "io.k8s.api.batch.v1.CronJob",
    generation: true,
    default,
    validate,
    columns: COLUMNS,
    row,
    warnings: |it| {
        let name = name_warning(it, "Pod names and hostnames");
        name.into_iter().chain(warnings(it)).collect()
    },
    warnings_on_update: Some(warnings),
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Schedule", "When jobs are made."),
    column("Timezone", "Where the schedule's hours are from."),
    Column { kind: "boolean", ..column("Suspend", "Whether no jobs are made for now.") },
    number("Active", "Jobs that run."),
    column("Last Schedule", "Time since a job was made last."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Succeeded and failed jobs that are kept.
const KEPT: [(&str, i64); 2] = [("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1)];
/// Bytes that are appended to the name to make those of jobs.
const SUFFIX: usize = 11;

fn default(cron_job: &mut Value) {
    let Some(spec) = object_mut(cron_job, "spec") else { return };
    set_default(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    for (name, count) in KEPT {
        set_default(spec, name, count);
    }
    if let Some(template) = object_mut(spec, "jobTemplate") {
        object_mut(template, "metadata");
        if let Some(job) = object_mut(template, "spec") {
            job_spec::default_template(job);
        }
    }
}

fn validate(cron_job: &Value, causes: &mut Causes) {
    let (spec, path) = (cron_job.field("spec"), Path::new("spec"));
    let schedule = spec.text("schedule");
    if schedule.is_empty() {
        causes.required(path.child("schedule"), "");
    } else {
        if let Err(problem) = schedule::check(schedule) {
            causes.invalid(path.child("schedule"), &schedule.into(), &problem);
        }
        if schedule.contains("TZ") {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            causes.invalid(path.child("schedule"), &schedule.into(), detail);
        }
    }
    rules::not_negative(spec, "startingDeadlineSeconds", path, causes);
    if let Some(zone) = spec.field("timeZone").as_str() {
        time_zone(zone, path.child("timeZone"), causes);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    rules::one_of(spec, "concurrencyPolicy", &policies, path, causes);
    let job = spec.at(&["jobTemplate", "spec"]);
    let job_path = path.child("jobTemplate");
    let job_path = job_path.child("spec");
    job_spec::validate(job, job_path, causes);
    if job.has("selector") {
        let detail = "`selector` will be auto-generated";
        causes.invalid(job_path.child("selector"), job.field("selector"), detail);
    }
    if job.flag("manualSelector") {
        let manual = job.field("manualSelector");
        causes.not_supported(job_path.child("manualSelector"), manual, &["nil", "false"]);
    }
    for (name, _) in KEPT {
        rules::not_negative(spec, name, path, causes);
    }
    let name = cron_job.field("metadata").text("name");
    if DNS_LABEL_MAX - SUFFIX < name.len() {
        let detail = format!("must be no more than {} characters", DNS_LABEL_MAX - SUFFIX);
        causes.invalid("metadata.name", &name.into(), &detail);
    }
}

fn time_zone(zone: &str, path: Path<'_>, causes: &mut Causes) {
    if zone.is_empty() {
        causes.invalid(path, &"".into(), "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in \
                      https://www.iana.org/time-zones";
        causes.invalid(path, &zone.into(), detail);
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        causes.invalid(path, &zone.into(), &format!("unknown time zone {zone}"));
    }
}

fn row(cron_job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (cron_job.field("spec"), cron_job.field("status"));
    let [containers, images, selector] = cells(spec.at(&["jobTemplate", "spec"]));
    let last = match status.text("lastScheduleTime") {
        "" => print::NONE.to_owned(),
        time => print::since(time, now),
    };
    vec![
        print::name(cron_job),
        spec.text("schedule").into(),
        print::or_none(spec.text("timeZone")).into(),
        print::flag_or_unset(spec.field("suspend")).into(),
        status.items("active").len().into(),
        last.into(),
        print::age(cron_job, now),
        containers,
        images,
        selector,
    ]
}

/// What is said of the template of the jobs' pods.
fn warnings(it: &Value) -> Vec<String> {
    let template = it.at(&["spec", "jobTemplate", "spec", "template"]);
    pod_spec::warnings(template, "spec.jobTemplate.spec.template.")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn schedules_and_zones_are_known() {
        check(
            &CRON_JOB,
            spec(json!({"schedule": "* * *", "timeZone": "Mars/Base"})),
            expect![[r#"
                spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]
                spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base"#]],
        );
        check(
            &CRON_JOB,
            spec(json!({"schedule": "TZ=UTC * * * * *"})),
            expect![[
                r#"spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#
            ]],
        );
        check(
            &CRON_JOB,
            spec(json!({"schedule": null, "timeZone": "Local"})),
            expect![[r#"
            spec.schedule: Required value
            spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"#]],
        );
        check(&CRON_JOB, spec(json!({"timeZone": "Europe/Berlin"})), expect![""]);
    }

    #[test]
    fn jobs_are_checked() {
        check(
            &CRON_JOB,
            spec(json!({"concurrencyPolicy": "Maybe", "jobTemplate": {"spec": {
                "parallelism": -1, "manualSelector": true, "selector": {}}}})),
            expect![[r#"
                spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"
                spec.jobTemplate.spec.parallelism: Invalid value: -1: must be greater than or equal to 0
                spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated
                spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false""#]],
        );
        check(
            &CRON_JOB,
            json!({"metadata": {"name": "a".repeat(53)}}),
            expect![[
                r#"metadata.name: Invalid value: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": must be no more than 52 characters"#
            ]],
        );
        let status = json!({"lastScheduleTime": "2024-01-01T00:59:00Z", "active": [{}]});
        check_row(
            &CRON_JOB,
            json!({"status": status}),
            expect!["a | */5 * * * * | <none> | False | 1 | 60s | 60m | c | app:v1 | <none>"],
        );
    }
}
