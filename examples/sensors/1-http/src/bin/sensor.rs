//! The sensor: answers every request with three random numbers as JSON, such as `[17,4,4294967295]`.
//! It keeps nothing and calls nobody.

use std::io;

use axum::{Json, Router};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let router = Router::new().fallback(async || {
        println!("Got request");
        let values = measure();
        println!("Sending values {values:?}");
        Json(values)
    });
    sensors_1_http::serve("sensor", 9001, router).await
}

/// What this sensor measures: any three 32-bit numbers.
fn measure() -> [u32; 3] {
    [(); 3].map(|()| fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_something_else_each_time() {
        let measured: std::collections::HashSet<_> = (0..100).map(|_| measure()).collect();
        assert_eq!(measured.len(), 100);
    }
}
