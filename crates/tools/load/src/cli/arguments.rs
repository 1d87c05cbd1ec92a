//! What can be given on the command line.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::{HeaderName, HeaderValue, Method};

use crate::scenario::units::{Rate, parse_duration};

/// Arguments of `coracle load`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// What to load: a URL.
    pub target: String,
    /// How many requests are meant to start: `500/s`, `30/m`, `7200/h`.
    #[arg(long, default_value = "10/s", conflicts_with = "closed")]
    pub rate: Rate,
    /// For how long requests are meant to start.
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Space starts at random, as independent users would, instead of evenly.
    #[arg(long, conflicts_with = "closed")]
    pub poisson: bool,
    /// Closed loop: this many users, each of whom waits for its answer before it asks again. What it
    /// measures says nothing about those who would have come meanwhile.
    #[arg(long, value_name = "USERS", value_parser = clap::value_parser!(u32).range(1..))]
    pub closed: Option<u32>,
    /// Same seed, same starts and same choices. If not given, a new one, which the results tell.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Method of the request.
    #[arg(short = 'X', long, default_value = "GET")]
    pub method: Method,
    /// A header, `NAME: VALUE`; may be given again.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = parse_header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body of the request.
    #[arg(short = 'd', long, conflicts_with = "body_file")]
    pub body: Option<String>,
    /// File with the body of the request.
    #[arg(long, value_name = "FILE")]
    pub body_file: Option<PathBuf>,
    /// After how long a request is given up, counted from its actual start.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Connections that may be open at once; if not given, as many as descriptors allow.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Believe any certificate.
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// PEM file of the authorities to believe, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The target is not this machine, and you may load it.
    #[arg(long)]
    pub i_may: bool,
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `NAME: VALUE`")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is no name of a header"))?;
    let value = value.trim().parse().map_err(|_| format!("`{value}` is no value of a header"))?;
    Ok((name, value))
}
