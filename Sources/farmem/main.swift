// farmem: looks at, measures and tries what the daemons do. Wiring only.

import CommandLineKit

Program(FarmemCommand.root).main()
