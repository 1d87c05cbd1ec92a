//! Deletes: preconditions, finalizers, grace, namespaces, collections.

use expect_test::expect;

use super::{Api, pass, pick};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

const DELETION: &[&str] = &[
    "/metadata/deletionTimestamp",
    "/metadata/deletionGracePeriodSeconds",
    "/metadata/finalizers",
];

#[tokio::test(start_paused = true)]
async fn at_once() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    let delete = format!("DELETE {MAPS}/a");
    api.check(&delete, r#"{"preconditions":{"uid":"other"}}"#, expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: other, UID in object meta: 533da458-4da9-483f-8561-7adf6a4f23ce"#]]).await;
    api.check(&delete, r#"{"preconditions":{"resourceVersion":"1"}}"#, expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": Precondition failed: ResourceVersion in precondition: 1, ResourceVersion in object meta: 31"#]]).await;
    api.check(&delete, r#"{"propagationPolicy":"Else"}"#, expect![[r#"400 BadRequest propagationPolicy: Unsupported value: "Else": supported values: "Background", "Foreground", "Orphan""#]]).await;
    api.value(&delete, r#"{"dryRun":["All"]}"#).await;
    api.check(&delete, r#"{"kind":"DeleteOptions","apiVersion":"v1"}"#, expect![[r#"200 {"apiVersion":"v1","details":{"kind":"configmaps","name":"a","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"},"kind":"Status","metadata":{},"status":"Success"}"#]]).await;
    api.check(&delete, "", expect![[r#"404 NotFound configmaps "a" not found"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    let (object, patch) = (format!("{MAPS}/a"), format!("PATCH+merge {MAPS}/a"));
    api.value(&patch, r#"{"metadata":{"finalizers":["x/y","x/z"]}}"#).await;
    let waiting = api.value(&format!("DELETE {object}"), "").await;
    expect![[r#"2026-01-01T12:00:00Z 0 ["x/y","x/z"]"#]].assert_eq(&pick(&waiting, DELETION));
    // Again: nothing changes.
    let again = api.value(&format!("DELETE {object}"), "").await;
    assert_eq!(again, waiting);
    api.check(&patch, r#"{"metadata":{"finalizers":["x/y","x/z","x/new"]}}"#, expect![[r#"422 Invalid ConfigMap "a" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x/new"}"#]]).await;
    api.value(&patch, r#"{"metadata":{"finalizers":["x/y"]}}"#).await;
    let last = api.value(&patch, r#"{"metadata":{"finalizers":null}}"#).await;
    expect!["2026-01-01T12:00:00Z 0 -"].assert_eq(&pick(&last, DELETION));
    api.check(&format!("GET {object}"), "", expect![[r#"404 NotFound configmaps "a" not found"#]])
        .await;
}

#[tokio::test(start_paused = true)]
async fn propagation_becomes_a_finalizer() {
    let api = Api::new().await;
    for (name, policy) in [("a", "Foreground"), ("b", "Orphan")] {
        api.config_map(name, "").await;
        let body = format!(r#"{{"propagationPolicy":"{policy}"}}"#);
        let waiting = api.value(&format!("DELETE {MAPS}/{name}"), &body).await;
        let expected = if name == "a" { "foregroundDeletion" } else { "orphan" };
        assert_eq!(waiting["metadata"]["finalizers"][0], expected);
    }
    // A later background delete takes it away, and the object goes.
    api.value(&format!("DELETE {MAPS}/a?propagationPolicy=Background"), "").await;
    api.check(&format!("GET {MAPS}/a"), "", expect![[r#"404 NotFound configmaps "a" not found"#]])
        .await;
}

#[tokio::test(start_paused = true)]
async fn pods_go_gracefully() {
    let api = Api::new().await;
    api.pod("unbound", None).await;
    api.value(&format!("DELETE {PODS}/unbound"), "").await;
    api.check(
        &format!("GET {PODS}/unbound"),
        "",
        expect![[r#"404 NotFound pods "unbound" not found"#]],
    )
    .await;
    api.pod("p", Some("n1")).await;
    let delete = format!("DELETE {PODS}/p");
    let waiting = api.value(&delete, "").await;
    expect!["2026-01-01T12:00:30Z 30 -"].assert_eq(&pick(&waiting, DELETION));
    pass(5).await;
    // It can be hastened, not put off.
    let later = api.value(&delete, r#"{"gracePeriodSeconds":60}"#).await;
    expect!["2026-01-01T12:00:30Z 30 -"].assert_eq(&pick(&later, DELETION));
    let sooner = api.value(&delete, r#"{"gracePeriodSeconds":7}"#).await;
    expect!["2026-01-01T12:00:07Z 7 -"].assert_eq(&pick(&sooner, DELETION));
    // The node is done.
    api.value(&delete, r#"{"gracePeriodSeconds":0}"#).await;
    api.check(&format!("GET {PODS}/p"), "", expect![[r#"404 NotFound pods "p" not found"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn namespaces_wait_for_their_controller() {
    let api = Api::new().await;
    let made = api.value("POST /api/v1/namespaces", r#"{"metadata":{"name":"n"}}"#).await;
    expect![[r#"["kubernetes"] Active {"kubernetes.io/metadata.name":"n"}"#]]
        .assert_eq(&pick(&made, &["/spec/finalizers", "/status/phase", "/metadata/labels"]));
    let namespace = "/api/v1/namespaces/n";
    let going = api.value(&format!("DELETE {namespace}"), "").await;
    expect![[r#"Terminating 2026-01-01T12:00:00Z ["kubernetes"]"#]].assert_eq(&pick(
        &going,
        &["/status/phase", "/metadata/deletionTimestamp", "/spec/finalizers"],
    ));
    api.check(&format!("POST {namespace}/configmaps"), r#"{"metadata":{"name":"a"}}"#, expect![[r#"403 Forbidden configmaps "a" is forbidden: unable to create new content in namespace n because it is being terminated"#]])
        .await;
    let body = r#"{"metadata":{"name":"n"},"spec":{"finalizers":[]}}"#;
    api.value(&format!("PUT {namespace}/finalize"), body).await;
    api.check(
        &format!("GET {namespace}"),
        "",
        expect![[r#"404 NotFound namespaces "n" not found"#]],
    )
    .await;
    api.check(
        "DELETE /api/v1/namespaces/default",
        "",
        expect![[
            r#"403 Forbidden namespaces "default" is forbidden: this namespace may not be deleted"#
        ]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn collections() {
    let api = Api::new().await;
    api.config_map("a", r#""x":"1""#).await;
    api.config_map("b", r#""x":"1""#).await;
    api.config_map("c", "").await;
    let deleted = api.value(&format!("DELETE {MAPS}?labelSelector=x"), "").await;
    assert_eq!(
        pick(&deleted, &["/items/0/metadata/name", "/items/1/metadata/name", "/items/2"]),
        "a b -"
    );
    let left = api.value(&format!("GET {MAPS}"), "").await;
    assert_eq!(pick(&left, &["/items/0/metadata/name", "/items/1"]), "c -");
    api.check(
        "DELETE /api/v1/namespaces",
        "",
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_collection() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.config_map(name, "").await;
    }
    let shown = |list: &serde_json::Value| {
        let items = ["/items/0/metadata/name", "/items/1/metadata/name", "/items/2"];
        format!("{} | {}", pick(list, &items), pick(list, &["/metadata/remainingItemCount"]))
    };
    let first = api.value(&format!("DELETE {MAPS}?limit=2"), "").await;
    expect!["a b - | 1"].assert_eq(&shown(&first));
    // As it was: what is told of an object is what the list found.
    assert_eq!(pick(&first, &["/items/1/metadata/resourceVersion"]), "32");
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = api.value(&format!("DELETE {MAPS}?limit=2&continue={token}"), "").await;
    expect!["c - - | -"].assert_eq(&shown(&rest));
    let wrong = format!("DELETE {MAPS}?resourceVersionMatch=Exact");
    api.check(&wrong, "", expect![[r#"422 Invalid ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_jobs_stay_unless_the_request_says_otherwise() {
    let api = Api::new().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let body = r#"{"metadata":{"name":"a"},"spec":{"template":{"spec":{"restartPolicy":"Never",
        "containers":[{"name":"c","image":"i"}]}}}}"#;
    api.value(&format!("POST {jobs}"), body).await;
    let waiting = api.send(&format!("DELETE {jobs}/a"), "").await;
    let warning = waiting.headers()["warning"].to_str().unwrap().to_owned();
    assert!(warning.contains("child pods are preserved"), "{warning}");
    let job = api.value(&format!("GET {jobs}/a"), "").await;
    expect![[r#"["orphan"]"#]].assert_eq(&pick(&job, &["/metadata/finalizers"]));
    api.value(&format!("DELETE {jobs}/a?propagationPolicy=Background"), "").await;
    api.check(&format!("GET {jobs}/a"), "", expect![[r#"404 NotFound jobs.batch "a" not found"#]])
        .await;
}
