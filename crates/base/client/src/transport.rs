//! The ways to a server: a service in this process, or HTTPS as a kubeconfig or a pod's ServiceAccount
//! describes it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::USER_AGENT};
use kube::{
    Client, Config,
    client::Body,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{BoxError, Service, ServiceExt as _};

/// Namespace of requests that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// A client whose transport is a function call: `service` is the router of an apiserver in this
/// process, or anything that answers like one. Must be called inside a tokio runtime.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, DEFAULT_NAMESPACE)
}

/// The same under a name, which the API shows as the manager of the fields that this client writes.
pub fn in_process_as<S, B>(service: S, agent: &'static str) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    in_process(service.map_request(move |mut request: Request<Body>| {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
        request
    }))
}

/// What clients over HTTPS call themselves.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("coracle/", env!("CARGO_PKG_VERSION")));

/// Why there is no client for a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file is missing, unreadable, or names no such context.
    #[error("read kubeconfig `{path}`")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The file was read, but its server address or credentials cannot be used.
    #[error("use kubeconfig `{path}`")]
    Client {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::Error>,
    },
    /// This is a pod with a token, but what else it needs is missing or unreadable.
    #[error("use this pod's ServiceAccount")]
    Pod(#[source] Box<InClusterError>),
    /// The pod's certificates or address of the server cannot be used.
    #[error("reach the API as this pod's ServiceAccount")]
    PodClient(#[source] Box<kube::Error>),
}

/// A client over HTTPS, as `kubeconfig` says, under `context` or the file's current one. Only reads
/// the file; whether the server answers shows with the first request.
pub async fn connect(kubeconfig: &Path, context: Option<&str>) -> Result<Client, ConnectError> {
    let path = || kubeconfig.to_owned();
    let unreadable = |source| ConnectError::Kubeconfig { path: path(), source: Box::new(source) };
    let options =
        KubeConfigOptions { context: context.map(ToOwned::to_owned), ..Default::default() };
    let file = Kubeconfig::read_from(kubeconfig).map_err(unreadable)?;
    let mut config = Config::from_custom_kubeconfig(file, &options).await.map_err(unreadable)?;
    config.headers.push((USER_AGENT, AGENT));
    Client::try_from(config)
        .map_err(|source| ConnectError::Client { path: path(), source: Box::new(source) })
}

/// Where a pod finds the token of its ServiceAccount, if it was given one.
pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A client over HTTPS as the ServiceAccount of the pod this process is in; `None` if there is no
/// token at [`SERVICE_ACCOUNT_TOKEN`]. Whether the server answers shows with the first request; the
/// token is read again when it changes.
pub fn connect_as_pod() -> Result<Option<Client>, ConnectError> {
    if !Path::new(SERVICE_ACCOUNT_TOKEN).exists() {
        return Ok(None);
    }
    let mut config = Config::incluster_env().map_err(|it| ConnectError::Pod(Box::new(it)))?;
    config.headers.push((USER_AGENT, AGENT));
    let client = Client::try_from(config).map_err(|it| ConnectError::PodClient(Box::new(it)))?;
    Ok(Some(client))
}
