"""The whole loop, played: `world` acts and looks, `story` tells, `outcome` holds it to the promises."""
