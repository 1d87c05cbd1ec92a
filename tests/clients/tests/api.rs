//! The API as other clients see it than kubectl of today: scripts like those of `scripts.rs`, with the
//! programs of `../api`. `cargo xtask test api` installs the clients and says where they are.

/// Makes a test of each script.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() -> anyhow::Result<()> {
                coracle_clients::run("api", stringify!($name))
            }
        )*

        #[test]
        fn every_script_is_listed() -> anyhow::Result<()> {
            assert_eq!(coracle_clients::scripts("api")?, [$(stringify!($name)),*]);
            Ok(())
        }
    };
}

scripts! {
    helm
    kr8s
    kube_rs
    lightkube
    metrics
    node
    older_kubectl
    proxy
    python
}
