// fngateway: the function gateway. Wiring only.

import CommandLineKit

Program(
    Command(
        name: "fngateway", summary: "runs functions in containers",
        discussion: """
            Serves POST /function/NAME over HTTP by running the function in a container that runc starts, and keeps \
            idle containers for the next request. Tells the offload controller what each container is doing.
            """,
        subcommands: [runCommand, describeCommand])
).main()
