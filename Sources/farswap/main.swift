import CommandLineKit

Program(FarswapCommand.root).main()
