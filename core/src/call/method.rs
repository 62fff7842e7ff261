//! The methods of our services.

/// The methods of `prism.keyvalue.v1.KeyValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// Writes items of one id.
    Put,
    /// Reads items of one id.
    Get,
    /// Deletes items of one id.
    Delete,
    /// Streams a namespace.
    Scan,
    /// Writes to many ids.
    Mutate,
    /// Replaces a value that is as expected.
    CompareAndSwap,
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Put,
        Self::Get,
        Self::Delete,
        Self::Scan,
        Self::Mutate,
        Self::CompareAndSwap,
    ];

    /// The name in the service definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "Put",
            Self::Get => "Get",
            Self::Delete => "Delete",
            Self::Scan => "Scan",
            Self::Mutate => "Mutate",
            Self::CompareAndSwap => "CompareAndSwap",
        }
    }
}

/// The methods of `prism.admin.v1`, served by the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminMethod {
    Validate,
    Create,
    Get,
    List,
    Delete,
    DeadLetters(DeadLetterMethod),
}

/// The methods of `prism.admin.v1.DeadLetters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadLetterMethod {
    List,
    Get,
    Redrive,
    Drop,
}
