//! The FlowSchemas and PriorityLevelConfigurations of every cluster. Nothing here is asked about the order
//! of requests yet; clients and charts look for these by their names.

use serde_json::{Map, Value, json};

use super::Own;

/// Who owns their fields. As in Kubernetes.
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
/// Says that a newer server may bring the object up to date.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
const GLOBAL_DEFAULT: &str = "global-default";
const WORKLOAD_HIGH: &str = "workload-high";
const WORKLOAD_LOW: &str = "workload-low";

/// Requests that wait for one of a level's seats.
const WAITING_MAX: u32 = 50;

/// What becomes of requests for which a level has no seat.
enum Response {
    /// They wait in one of so many queues, of which a flow uses a hand.
    Queue {
        queues: u32,
        hand: u32,
    },
    Reject,
}

/// A level of priority that has a share of the seats: name, share, percentage that others may use,
/// response.
type Limited = (&'static str, u32, u32, Response);

const LEVELS: [Limited; 7] = [
    (CATCH_ALL, 5, 0, Response::Reject),
    ("system", 30, 33, Response::Queue { queues: 64, hand: 6 }),
    ("node-high", 40, 25, Response::Queue { queues: 64, hand: 6 }),
    ("leader-election", 10, 0, Response::Queue { queues: 16, hand: 4 }),
    (WORKLOAD_HIGH, 40, 50, Response::Queue { queues: 128, hand: 6 }),
    (WORKLOAD_LOW, 100, 90, Response::Queue { queues: 128, hand: 6 }),
    (GLOBAL_DEFAULT, 20, 50, Response::Queue { queues: 128, hand: 6 }),
];

const CONTROLLERS: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// Whose requests a schema is about.
#[derive(Clone, Copy)]
enum Subjects {
    Groups(&'static [&'static str]),
    User(&'static str),
    /// The ServiceAccounts of the system's own namespace.
    SystemAccounts,
    /// Those, the controllers and the scheduler.
    Leaders,
}

/// Which of their requests.
#[derive(Clone, Copy)]
enum Requests {
    All,
    Probes,
    Leases,
    Nodes,
}

/// What tells flows apart.
#[derive(Clone, Copy)]
enum By {
    Nothing,
    User,
    Namespace,
}

/// A schema: name, level, precedence, what tells flows apart, whose requests, and which.
type Schema = (&'static str, &'static str, u32, By, Subjects, Requests);

const EVERYBODY: Subjects = Subjects::Groups(&["system:unauthenticated", "system:authenticated"]);
const NODES: Subjects = Subjects::Groups(&["system:nodes"]);

const SCHEMAS: [Schema; 11] = [
    (EXEMPT, EXEMPT, 1, By::Nothing, Subjects::Groups(&["system:masters"]), Requests::All),
    ("probes", EXEMPT, 2, By::Nothing, EVERYBODY, Requests::Probes),
    (
        "system-leader-election",
        "leader-election",
        100,
        By::User,
        Subjects::Leaders,
        Requests::Leases,
    ),
    ("system-node-high", "node-high", 400, By::User, NODES, Requests::Nodes),
    ("system-nodes", "system", 500, By::User, NODES, Requests::All),
    (
        "kube-controller-manager",
        WORKLOAD_HIGH,
        800,
        By::Namespace,
        Subjects::User(CONTROLLERS),
        Requests::All,
    ),
    ("kube-scheduler", WORKLOAD_HIGH, 800, By::Namespace, Subjects::User(SCHEDULER), Requests::All),
    (
        "kube-system-service-accounts",
        WORKLOAD_HIGH,
        900,
        By::Namespace,
        Subjects::SystemAccounts,
        Requests::All,
    ),
    (
        "service-accounts",
        WORKLOAD_LOW,
        9000,
        By::User,
        Subjects::Groups(&["system:serviceaccounts"]),
        Requests::All,
    ),
    (GLOBAL_DEFAULT, GLOBAL_DEFAULT, 9900, By::User, EVERYBODY, Requests::All),
    (CATCH_ALL, CATCH_ALL, 10_000, By::User, EVERYBODY, Requests::All),
];

/// All of them.
pub(super) fn objects() -> impl Iterator<Item = Own> {
    let nobody_waits = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    let exempt = own(
        "PriorityLevelConfiguration",
        EXEMPT,
        json!({"type": "Exempt", "exempt": nobody_waits}),
    );
    let levels = LEVELS.iter().map(level);
    std::iter::once(exempt).chain(levels).chain(SCHEMAS.iter().map(schema))
}

fn own(kind: &'static str, name: &'static str, spec: Value) -> Own {
    let annotations = json!({AUTO_UPDATE: "true"});
    let object = json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec});
    Own { manager: MANAGER, ..Own::new(kind, None, object) }
}

fn level((name, shares, lendable, response): &Limited) -> Own {
    let response = match response {
        Response::Reject => json!({"type": "Reject"}),
        Response::Queue { queues, hand } => {
            let queuing =
                json!({"queues": queues, "handSize": hand, "queueLengthLimit": WAITING_MAX});
            json!({"type": "Queue", "queuing": queuing})
        }
    };
    let limited = json!({
        "nominalConcurrencyShares": shares,
        "lendablePercent": lendable,
        "limitResponse": response,
    });
    own("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
}

fn schema((name, level, precedence, by, subjects, requests): &Schema) -> Own {
    let mut rule = requests.rule();
    rule.insert("subjects".to_owned(), Value::Array(subjects.list()));
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    let method = match by {
        By::Nothing => None,
        By::User => Some("ByUser"),
        By::Namespace => Some("ByNamespace"),
    };
    if let Some(method) = method {
        crate::object::set(&mut spec, &["distinguisherMethod", "type"], json!(method));
    }
    own("FlowSchema", name, spec)
}

impl Subjects {
    fn list(self) -> Vec<Value> {
        let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
        match self {
            Self::Groups(names) => {
                let group = |name: &&str| json!({"kind": "Group", "group": {"name": name}});
                names.iter().map(group).collect()
            }
            Self::User(name) => vec![user(name)],
            Self::SystemAccounts => {
                let all = json!({"namespace": "kube-system", "name": "*"});
                vec![json!({"kind": "ServiceAccount", "serviceAccount": all})]
            }
            Self::Leaders => {
                let mut list = vec![user(CONTROLLERS), user(SCHEDULER)];
                list.extend(Self::SystemAccounts.list());
                list
            }
        }
    }
}

impl Requests {
    fn rule(self) -> Map<String, Value> {
        let objects = |verbs: Value, group: &str, resources: Value, cluster: bool| {
            let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources,
                "namespaces": ["*"]});
            if cluster {
                crate::object::set(&mut rule, &["clusterScope"], json!(true));
            }
            rule
        };
        let all = json!(["*"]);
        let (objects, paths) = match self {
            Self::All => (
                vec![objects(all.clone(), "*", all, true)],
                vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})],
            ),
            Self::Probes => {
                let paths = json!(["/healthz", "/readyz", "/livez"]);
                (Vec::new(), vec![json!({"verbs": ["get"], "nonResourceURLs": paths})])
            }
            Self::Leases => {
                let verbs = json!(["get", "create", "update"]);
                (vec![objects(verbs, "coordination.k8s.io", json!(["leases"]), false)], Vec::new())
            }
            Self::Nodes => {
                let nodes = json!(["nodes", "nodes/status"]);
                let leases = objects(all.clone(), "coordination.k8s.io", json!(["leases"]), false);
                (vec![objects(all, "", nodes, true), leases], Vec::new())
            }
        };
        let lists = [("resourceRules", objects), ("nonResourceRules", paths)];
        let given = lists.into_iter().filter(|(_, list)| !list.is_empty());
        given.map(|(name, list)| (name.to_owned(), Value::Array(list))).collect()
    }
}
