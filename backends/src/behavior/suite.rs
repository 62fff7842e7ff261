//! The list of cases of one API's suite, and how it is run.

use crate::offer::Features;

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Number of the promise, for example `P7`, in lower case within the name of the function.
    pub name: &'static str,
    /// Features that a store must offer for it.
    pub needs: Features,
    /// Side from which it can be observed.
    pub seen: Seen,
}

/// Where a case can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// At a store, and through a gateway.
    Anywhere,
    /// Through a gateway only: it is about what that adds.
    AtGateway,
    /// At a store only: a gateway's stream continues while the test does not read, so it misses
    /// nothing.
    AtStore,
}

impl Case {
    /// Whether the case applies to a store with these features, or to a gateway in front of it.
    pub fn applies(&self, features: Features, is_gateway: bool) -> bool {
        let hidden = match is_gateway {
            true => Seen::AtStore,
            false => Seen::AtGateway,
        };
        features.has(self.needs) && self.seen != hidden
    }
}

/// Makes `CASES`, `run_case` and `run` of a module that has a `Harness`.
macro_rules! suite {
    ($($module:ident :: $name:ident: $needs:expr, $seen:ident);* $(;)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            needs: $needs,
            seen: Seen::$seen,
        }),*];

        /// Runs one case.
        ///
        /// # Panics
        /// When the case fails, or there is none of that name.
        pub async fn run_case<H: Harness>(name: &str, harness: &mut H) {
            match name {
                $(stringify!($name) => $module::$name(harness).await,)*
                _ => panic!("the suite has no case {name}"),
            }
        }

        /// Runs all cases that apply to the harness, one after the other.
        ///
        /// # Panics
        /// When a case fails.
        pub async fn run<H: Harness>(harness: &mut H) {
            let (features, is_gateway) = (harness.offer().features, harness.is_gateway());
            for case in CASES.iter().filter(|case| case.applies(features, is_gateway)) {
                run_case(case.name, harness).await;
            }
        }
    };
}
