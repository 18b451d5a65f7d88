//! Values that several tasks share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The value, also after a task that held it has panicked: the panic is reported where it happened.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
