//! Buffers for what is large.

/// From this size on, what is received waits for its turn, and its buffers are [`ROOM`] large.
pub(crate) const LARGE: usize = 512 * 1024;

/// Allocators take a buffer of more than 32 MiB from the system and give it back at once, where they would keep
/// a smaller one for later. Only what is written of it takes memory; and it is never copied to grow.
const ROOM: usize = 33 * 1024 * 1024;

/// Makes room for so many more bytes.
pub(crate) fn make_room(buffer: &mut Vec<u8>, more: usize) {
    let needed = buffer.len() + more;
    if needed >= LARGE && buffer.capacity() < needed.max(ROOM) {
        buffer.reserve_exact(needed.max(ROOM) - buffer.len());
    }
}

/// Gives the space back that a large text has left.
pub(crate) fn give_back(buffer: &mut Vec<u8>) {
    if buffer.len() < LARGE {
        buffer.shrink_to(LARGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_text_has_a_buffer_that_is_not_copied_nor_kept() {
        let mut buffer = b"some".to_vec();
        make_room(&mut buffer, 100);
        assert!(buffer.capacity() < LARGE);
        make_room(&mut buffer, LARGE);
        let place = buffer.as_ptr();
        assert!(buffer.capacity() > 32 * 1024 * 1024);
        buffer.resize(40 * LARGE, b'x');
        give_back(&mut buffer);
        assert_eq!((buffer.as_ptr(), buffer.len()), (place, 40 * LARGE));
        buffer.truncate(4);
        give_back(&mut buffer);
        assert!(buffer == b"some" && buffer.capacity() <= LARGE);
    }
}
