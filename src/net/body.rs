//! A body in pieces of bounded size.

use bytes::Bytes;

/// The body of a response. What has come at once, which can be half a megabyte, is handed out in
/// small pieces, so that what is made of each stays in the processor's cache and in small buffers.
pub(crate) struct Body {
    response: reqwest::Response,
    rest: Bytes,
    most: usize,
}

impl Body {
    /// The body of `response`, in pieces of at most `most` bytes.
    pub(crate) fn new(response: reqwest::Response, most: usize) -> Self {
        Self { response, rest: Bytes::new(), most }
    }

    /// The response without what has been taken from its body.
    pub(crate) fn response(&self) -> &reqwest::Response {
        &self.response
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the body is cut or stalls.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, reqwest::Error> {
        while self.rest.is_empty() {
            match self.response.chunk().await? {
                Some(chunk) => self.rest = chunk,
                None => return Ok(None),
            }
        }
        Ok(Some(self.rest.split_to(self.most.min(self.rest.len()))))
    }
}
