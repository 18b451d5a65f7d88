//! Standard input, line by line, in blocks.
//!
//! A thread of its own reads, because standard input blocks. Lines may have any length. The queue to
//! the rest of the program is bounded, so that a slow webhook slows the reading down.

use std::io::{self, BufRead, BufReader, Read};

use tokio::sync::mpsc;

/// Lines are handed over in blocks of about this size, or as soon as nothing more waits.
const BLOCK: usize = 128 * 1024;
/// Blocks that may wait.
const QUEUE: usize = 4;

/// Whole lines, each with its line feed, except perhaps the very last one.
pub(super) type Block = io::Result<Vec<u8>>;

/// Starts to read.
pub(super) fn start(input: impl Read + Send + 'static) -> mpsc::Receiver<Block> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let mut reader = BufReader::with_capacity(BLOCK, input);
        loop {
            let mut block = Vec::new();
            let result = read_block(&mut reader, &mut block);
            let ended = matches!(result, Ok(true) | Err(_));
            if !block.is_empty() && sender.blocking_send(Ok(block)).is_err() {
                return;
            }
            if let Err(error) = result {
                // If the receiver is gone, the error no longer matters.
                drop(sender.blocking_send(Err(error)));
            }
            if ended {
                return;
            }
        }
    });
    receiver
}

/// Fills a block. Returns true at the end of the input.
fn read_block(reader: &mut BufReader<impl Read>, block: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        if reader.read_until(b'\n', block)? == 0 {
            return Ok(true);
        }
        if block.len() >= BLOCK || reader.buffer().is_empty() {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_of_any_length_stay_whole() {
        let long = "x".repeat(3_000_000);
        let text = format!("a\n\n{long}\n{}last", "short line\n".repeat(50_000));
        let mut blocks = start(io::Cursor::new(text.clone()));
        let mut all = Vec::new();
        while let Some(block) = blocks.recv().await {
            let block = block.unwrap();
            assert!(block.ends_with(b"\n") || all.len() + block.len() == text.len());
            all.extend_from_slice(&block);
        }
        assert_eq!(all, text.into_bytes());
    }
}
