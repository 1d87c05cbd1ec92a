//! The worker: squares the numbers it is sent, `[1,2,3]` gives `[1,4,9]`. It does not know where
//! they come from.

use std::io;

use axum::{
    Json, Router,
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse, Response},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let router = Router::new().fallback(async |body: Bytes| answer(&body));
    sensors_1_http::serve("worker", 9002, router).await
}

/// The response to a request with `body`.
fn answer(body: &[u8]) -> Response {
    let numbers = match serde_json::from_slice::<Vec<i64>>(body) {
        Ok(numbers) => numbers,
        Err(error) => {
            println!("Rejected request: {error}");
            let message = format!("expected a JSON array of integers: {error}\n");
            return (StatusCode::BAD_REQUEST, message).into_response();
        }
    };
    println!("Got request {numbers:?}");
    let squares = squares(&numbers);
    println!("Sending response {squares:?}");
    Json(squares).into_response()
}

/// The squares of `numbers`. That of any 64-bit integer fits into 128 bits.
fn squares(numbers: &[i64]) -> Vec<u128> {
    numbers.iter().map(|it| u128::from(it.unsigned_abs()).pow(2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(body: &str, status: u16, expected: &str) {
        let response = answer(body.as_bytes());
        assert_eq!(response.status(), status);
        let answer = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }

    #[tokio::test]
    async fn squares_every_number() {
        check("[1,2,3]", 200, "[1,4,9]").await;
        check("[]", 200, "[]").await;
        check("[-3]", 200, "[9]").await;
        check("[4294967295]", 200, "[18446744065119617025]").await;
        check("[-9223372036854775808]", 200, "[85070591730234615865843651857942052864]").await;
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_body() {
        for body in ["", "[1,2", "7", "[1.5]", "[\"1\"]", "{}"] {
            let response = answer(body.as_bytes());
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        }
        check(
            "[1,2",
            400,
            "expected a JSON array of integers: EOF while parsing a list at line 1 column 4\n",
        )
        .await;
    }
}
