//! Decisions that are read from bytes.

/// Reads decisions from bytes: what a fuzzer changes in the bytes is what happens differently.
///
/// When the bytes are used up, every further decision is the first of its choices and every
/// number is 0, so that any bytes are the beginning of a run that ends.
#[derive(Debug, Clone)]
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Decisions from these bytes, front first.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether the bytes are used up.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((&byte, rest)) => {
                self.bytes = rest;
                byte
            }
            None => 0,
        }
    }

    /// Below `bound`, from one byte: nothing above 255 is chosen.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// One of two.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A size in bytes: most are below 200, some around 16 KiB and its multiples, none above
    /// 130 KiB.
    pub fn size(&mut self) -> usize {
        match self.byte() {
            small @ 0..200 => small.into(),
            medium @ 200..248 => usize::from(medium - 199) * 256 + usize::from(self.byte()),
            large => usize::from(large - 247) * 16 * 1024 + usize::from(self.byte()) - 128,
        }
    }

    /// Up to `count` bytes as they are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_used_up_decide_for_the_first_choice() {
        let mut choices = Choices::new(&[7, 1, 255, 0]);
        assert_eq!(choices.below(4), 3);
        assert!(choices.flag());
        assert_eq!(choices.size(), 8 * 16 * 1024 - 128);
        assert!(choices.is_empty());
        assert_eq!(choices.one_of(&["first", "second"]), "first");
        assert_eq!(choices.size(), 0);
        assert_eq!(choices.bytes(5), b"");
    }
}
