use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Do this with each of `items`, whichever of them panic, and then let the first panic go on: a
/// caller that is not woken waits for ever.
#[inline]
pub(crate) fn for_each_despite_panics<T>(
    items: impl IntoIterator<Item = T>,
    mut act: impl FnMut(T),
) {
    let mut first: Option<Box<dyn Any + Send>> = None;
    let mut items = items.into_iter();
    // Once for all of them, as a rule: each goes on behind the one that panicked.
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
        items.by_ref().for_each(&mut act);
    })) {
        first.get_or_insert(panic);
    }
    if let Some(panic) = first {
        resume_unwind(panic);
    }
}
