//! The table of error codes, `docs/errors.md`.

use std::fmt::Write;

use zentra_admin::ErrorCode;
use zentra_api::http_status;

use crate::failure::exit_status;

/// The page.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         Each failed request to the HTTP API answers with `application/problem+json`: `code` has one of \
         these names, `type` is `urn:zentra:error:` and the name, `detail` says what failed and what to \
         do. The command line ends with the exit status. Exit status 64 means that the command line \
         itself is invalid. Programs may compare codes and exit statuses: they don't change. `detail` \
         may.\n\n\
         `zentra errors` prints this page.\n\n\
         | code | meaning | HTTP status | exit status |\n|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let (name, meaning) = (code.as_str(), code.meaning());
        let (status, exit) = (http_status(*code).as_u16(), exit_status(*code));
        let _ = writeln!(page, "| `{name}` | {meaning} | {status} | {exit} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_the_codes() {
        let committed = include_str!("../../../docs/errors.md");
        assert!(committed == page(), "run: zentra errors > docs/errors.md");
    }
}
