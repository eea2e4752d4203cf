use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

/// The first panic of code that is not the client's: of wakers, and of requests and replies that are
/// dropped.
///
/// A caller that is not woken waits for ever, so each is woken before the panic goes on its way.
#[derive(Default)]
pub(crate) struct Panics(Option<Box<dyn Any + Send>>);

impl Panics {
    /// Do this with each of `items`, whichever of them panic.
    #[inline]
    pub(crate) fn contain<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut act: impl FnMut(T),
    ) {
        let mut items = items.into_iter();
        // Once for all of them, as a rule: each goes on behind the one that panicked.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
            items.by_ref().for_each(&mut act);
        })) {
            self.0.get_or_insert(panic);
        }
    }

    /// Let the first panic go on, unless another is on its way through a driver that is dropped for
    /// it: two at a time would end the program.
    #[inline]
    pub(crate) fn resume(self) {
        if let Some(panic) = self.0
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}
