//! One test a script. What the scripts are is in `../src/lib.rs`.

/// Makes a test of each script, and one that none is forgotten.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() -> anyhow::Result<()> {
                coracle_clients::run("scripts", stringify!($name))
            }
        )*

        #[test]
        fn every_script_is_listed() -> anyhow::Result<()> {
            assert_eq!(coracle_clients::scripts("scripts")?, [$(stringify!($name)),*]);
            Ok(())
        }
    };
}

scripts! {
    apply
    auth
    bad_manifests
    change
    chaos
    describe
    discover
    dual_stack
    ended
    endpoints
    events
    expose
    gateway
    get
    ingress
    kinds
    kustomize
    logs
    nodes
    prune
    restart
    rollout
    run
    sensors
    sensors_queue
    server_side
    services
    snapshot
    terminal
    watch
}
