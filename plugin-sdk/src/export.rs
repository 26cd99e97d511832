//! Between the author's [`crate::Session`] and the component's exports.

use std::cell::RefCell;

use crate::bindings::exports::holdpoint::plugin::stream_protocol::GuestSession;
use crate::{Action, Fault, Frame, IdentityOutcome, Refusal, Session, Setup, Side, Verdict};

/// A session as the component exports it. Methods of a resource take `&self`;
/// the host calls one at a time, so the borrow never fails.
pub struct Exported<S>(RefCell<S>);

impl<S: Session + 'static> GuestSession for Exported<S> {
    fn new(setup: Setup) -> Self {
        Self(RefCell::new(S::new(setup)))
    }

    fn open(&self) -> Result<Vec<Action>, Fault> {
        self.0.borrow_mut().open()
    }

    fn on_tls(&self, origin: Side) -> Result<Vec<Action>, Fault> {
        self.0.borrow_mut().on_tls(origin)
    }

    fn on_frames(&self, origin: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault> {
        self.0.borrow_mut().on_frames(origin, frames)
    }

    fn on_identity(&self, outcome: IdentityOutcome) -> Result<Vec<Action>, Fault> {
        self.0.borrow_mut().on_identity(outcome)
    }

    fn on_verdict(&self, verdict: Verdict) -> Result<Vec<Action>, Fault> {
        self.0.borrow_mut().on_verdict(verdict)
    }

    fn notice(&self, text: String) -> Vec<u8> {
        self.0.borrow().notice(&text)
    }

    fn terminate(&self, refusal: Refusal) -> Vec<u8> {
        self.0.borrow().terminate(&refusal)
    }
}

/// Makes a crate a stream plugin. Off WebAssembly nothing is exported, and the
/// names are only checked.
///
/// - `describe`: `fn() -> Descriptor`
/// - `session`: a type that implements [`Session`](crate::Session)
/// - `classify`: `fn(Vec<(String, Vec<u8>)>) -> Result<Command, String>`, the
///   classification of a session outside of one, for `holdpoint classify`
#[macro_export]
macro_rules! stream_plugin {
    (describe: $describe:path, session: $session:ty, classify: $classify:path $(,)?) => {
        #[doc(hidden)]
        const _: () = {
            struct Component;

            impl $crate::bindings::exports::holdpoint::plugin::stream_protocol::Guest
                for Component
            {
                type Session = $crate::export::Exported<$session>;

                fn describe() -> $crate::Descriptor {
                    $describe()
                }
            }

            impl $crate::bindings::exports::holdpoint::plugin::classifier::Guest for Component {
                fn classify(
                    input: ::std::vec::Vec<(::std::string::String, ::std::vec::Vec<u8>)>,
                ) -> ::std::result::Result<$crate::Command, ::std::string::String> {
                    $classify(input)
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::bindings::export_component!(
                Component with_types_in $crate::bindings
            );
            #[cfg(not(target_arch = "wasm32"))]
            const _: Component = Component;
        };
    };
}
