from crewai.tools import tool

GUIDE = {
    "porto": "Tram 1 leaves every 20 minutes, the cellars close at 19:00",
    "graz": "The clock tower is free, the funicular takes 3 minutes",
}


class GuideTools:

    @tool("City Guide")
    def look_up(place: str) -> str:
        """Looks a place up in the city guide of 2024: prices and opening times."""
        for name, text in GUIDE.items():
            if name in place.lower():
                return f"City guide of 2024: {text}"
        return "City guide of 2024: nothing about that place, a day costs 80 EUR on average"
